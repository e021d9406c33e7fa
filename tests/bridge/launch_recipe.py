"""A launch script for Megatron-Bridge as a user would write it: a recipe of Bridge's by its name, with overrides.

torchrun --nproc-per-node 8 -m megatron_nca tests/bridge/launch_recipe.py llama3_8b_pretrain_config OVERRIDE ...
"""

import sys

import megatron.bridge.recipes as recipes
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain
from megatron.bridge.training.utils.omegaconf_utils import process_config_with_overrides

name, *overrides = sys.argv[1:]
pretrain(process_config_with_overrides(getattr(recipes, name)(), cli_overrides=overrides), forward_step)
