"""Every symbol of another package that megatron-nca replaces, in one table.

Each wrapper calls what it replaces, with the same arguments, and carries a mark of our own (``patching.MARK``). Where a launch
has no word of ours, each does what it always did. ``megatron-nca doctor`` prints the table, ``docs/versions.md`` shows it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from megatron_nca.errors import EnvironmentMismatchError
from megatron_nca.patching import Wrapper, after_import, is_patched, patch
from megatron_nca.stacks import BRIDGE, CORE, MEGATRON_LM, NEMO

PYTHON = "Python"


@dataclass(frozen=True)
class Seam:
    """A symbol that is replaced.

    Attributes:
        stack: Name of the stack that the symbol belongs to.
        module: Module that defines it.
        symbol: Its name there; ``Class.method`` for a method.
        versions: Versions of its stack in which it is replaced.
        why: What the wrapper adds.
    """

    stack: str
    module: str
    symbol: str
    versions: str
    why: str

    @property
    def package(self) -> str:
        """The part of the module's name that modules which import the symbol share."""
        # Megatron-Core's functions are imported by everything that is built on it.
        return ".".join(self.module.split(".")[: 1 if self.stack == CORE.name else 2])


_LM, _BRIDGE = "0.14 to 0.20", "0.3 to 0.6"
_LOADERS, _OVERRIDES = "megatron.bridge.data.loaders", "megatron.bridge.training.utils.omegaconf_utils"
_NEMO_DATA = "nemo.collections.llm.gpt.data.pre_training"

SEAMS: tuple[Seam, ...] = (
    Seam(CORE.name, "megatron.core.datasets.blended_megatron_dataset_builder", "BlendedMegatronDatasetBuilder.build", _LM,
         "reads nca: entries and phases, and tells the run of its plan"),
    Seam(CORE.name, "megatron.core.datasets.utils", "get_blend_from_list", _LM, "leaves the words of such a data path to it"),
    Seam(MEGATRON_LM.name, "megatron.training.arguments", "add_megatron_arguments", _LM, "adds the --nca- options"),
    Seam(MEGATRON_LM.name, "megatron.training.arguments", "validate_args", _LM, "reads them, and refuses what cannot work"),
    Seam(MEGATRON_LM.name, "megatron.training.checkpointing", "check_checkpoint_args", _LM, "restores the record"),
    Seam(MEGATRON_LM.name, "megatron.training.checkpointing", "save_checkpoint", _LM, "brings the record up to date"),
    Seam(MEGATRON_LM.name, "megatron.training.training", "update_train_iters", _LM, "counts steps in phases' own batches"),
    Seam(MEGATRON_LM.name, "megatron.training.training", "train_step", _LM, "the transition, scalars, losses by source"),
    Seam(MEGATRON_LM.name, "megatron.training.training", "evaluate_and_print_results", _LM, "validation on NCA"),
    Seam(BRIDGE.name, "megatron.bridge.training.callbacks", "normalize_callbacks", _BRIDGE, "adds an NCACallback"),
    Seam(BRIDGE.name, _OVERRIDES, "parse_hydra_overrides", _BRIDGE, "takes nca. overrides"),
    Seam(BRIDGE.name, "megatron.bridge.training.setup", "setup", _BRIDGE, "reads the config, and refuses what cannot work"),
    Seam(BRIDGE.name, _LOADERS, "setup_data_iterators", _BRIDGE, "restores the record before the datasets are built"),
    Seam(BRIDGE.name, "megatron.bridge.training.state", "TrainState.state_dict", _BRIDGE, "writes the record"),
    Seam(BRIDGE.name, "megatron.bridge.training.state", "TrainState.load_state_dict", _BRIDGE, "reads the record"),
    Seam(BRIDGE.name, "megatron.bridge.training.train", "train_step", _BRIDGE, "losses by source"),
    Seam(NEMO.name, _NEMO_DATA, "validate_dataset_asset_accessibility", "2.0 to 2.7", "an entry is no file"),
    Seam(NEMO.name, _NEMO_DATA, "PreTrainingDataModule.build", "2.0 to 2.7", "batch sizes are known before the data"),
    Seam(NEMO.name, "nemo.lightning.pytorch.plugins.data_sampler", "MegatronDataSampler.compute_consumed_samples", "2.0 to 2.7",
         "counts samples in phases' own batches"),
    Seam(PYTHON, "os", "execv", "3.10 to 3.13", "a script that starts itself anew takes python -m megatron_nca along"),
    Seam(PYTHON, "os", "execve", "3.10 to 3.13", "the same, with an environment"),
)  # fmt: skip

Wrappers = Mapping[str, Wrapper]
"""Symbol -> what makes its wrapper."""


def seams_of(stack: str) -> tuple[Seam, ...]:
    """Return a stack's rows."""
    return tuple(seam for seam in SEAMS if seam.stack == stack)


def install(stack: str, wrappers: Wrappers, owner: object = True) -> None:
    """Replace the symbols of a stack that can be imported now; those that are replaced already are left alone.

    Args:
        stack: Name of the stack.
        wrappers: One for each of its rows.
        owner: Kept as the mark of each wrapper.

    Raises:
        EnvironmentMismatchError: One of the symbols is missing.
    """
    for seam in _complete(stack, wrappers):
        _patch(seam, importlib.import_module(seam.module), wrappers[seam.symbol], owner)


def install_on_import(stack: str, wrappers: Wrappers, owner: object = True) -> None:
    """Replace the symbols of a stack as soon as its modules are imported, and import none of them."""
    for seam in _complete(stack, wrappers):
        act = functools.partial(_patch, seam, wrapper=wrappers[seam.symbol], owner=owner)
        after_import(seam.module, act, seam)


def _complete(stack: str, wrappers: Wrappers) -> tuple[Seam, ...]:
    rows = seams_of(stack)
    if {seam.symbol for seam in rows} != wrappers.keys():
        raise ValueError(f"{stack}: wrappers {sorted(wrappers)} for the seams {sorted(seam.symbol for seam in rows)}")
    return rows


def _patch(seam: Seam, module: object, wrapper: Wrapper, owner: object) -> None:
    *classes, name = seam.symbol.split(".")
    holder = module
    for part in [*classes, name][:-1]:
        holder = getattr(holder, part, None)
    if not hasattr(holder, name):
        raise EnvironmentMismatchError(f"{seam.module} has no {seam.symbol}; megatron-nca knows {seam.stack} {seam.versions}")
    patch(holder, name, wrapper, "" if classes else seam.package, owner)


def installed(seams: Iterable[Seam] = SEAMS) -> list[Seam]:
    """Return the rows that are replaced in this process; imports nothing."""
    import sys

    found = []
    for seam in seams:
        holder: object = sys.modules.get(seam.module)
        *classes, name = seam.symbol.split(".")
        for part in classes:
            holder = getattr(holder, part, None)
        if is_patched(holder, name):
            found.append(seam)
    return found
