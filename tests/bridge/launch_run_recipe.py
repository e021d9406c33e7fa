"""``python -m megatron_nca run_recipe.py``: Bridge's own script with a recipe that a CPU trains; the CPU stands in for a GPU.

    python tests/bridge/launch_run_recipe.py RUN_RECIPE FOLDER ARGUMENTS...

The recipe is called ``tiny_pretrain_config`` and has no data path.
"""

# ruff: noqa: E402
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from megatron_nca.rehearsal import install
from megatron_nca.rehearsal.bridge import names

install()
names.provide()

import megatron_nca

# Before anything of Bridge is imported, as the launch itself does.
megatron_nca.register()

import megatron.bridge.recipes as recipes

from megatron_nca.__main__ import main
from tests.bridge import tiny_pretrain

script, folder, *arguments = sys.argv[1:]
recipes.tiny_pretrain_config = lambda: tiny_pretrain.config(folder, None)
main([script, *arguments])
