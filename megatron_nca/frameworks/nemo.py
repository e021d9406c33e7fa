"""NeMo 2: a data module that takes ``nca:`` entries and brings the callback along, and ``with_nca`` for recipes.

    recipe = with_nca(llm.llama3_8b.pretrain_recipe(), "nca:tokens=164M", "/data/text_document")

Replacing a recipe's ``data`` is all an override has to do. NeMo is imported when this module is.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from typing import TypeVar

from megatron_nca.data.overriding import are_phases, as_list, check_paths, no_text, words_of
from megatron_nca.errors import EnvironmentMismatchError, NCAError
from megatron_nca.interfaces.nemo import DataConfig, Recipe
from megatron_nca.training.options import PREFIX, Options, parameters

try:
    from nemo.collections.llm.gpt.data import pre_training

    from megatron_nca.frameworks.nemo_callback import NCACallback
    from megatron_nca.frameworks.nemo_data import STACK, register
except ImportError as error:
    raise EnvironmentMismatchError(
        f"megatron-nca's NeMo adapter needs nemo-toolkit 2.x with nemo.collections.llm (pip install megatron-nca[nemo]), and "
        f"importing it failed: {error}. NeMo 3.0 has no llm collection: its recipes went to Megatron-Bridge, so use "
        "megatron_nca.frameworks.megatron_bridge there"
    ) from error

R = TypeVar("R", bound=Recipe)


class NCADataModule(pre_training.PreTrainingDataModule):
    """NeMo's ``PreTrainingDataModule`` whose ``paths`` may hold ``nca:`` entries, and which brings the transition along.

    Args:
        paths: Data paths as of PreTrainingDataModule.
        **options: PreTrainingDataModule's other arguments, and the rows of ``megatron_nca.training.options.OPTIONS`` with
            ``nca_`` before their names.

    Raises:
        NCAError: An option's value is not usable.
    """

    def __init__(self, paths: list[str] | dict[str, list[str]], **options: object) -> None:
        run = register()
        ours = {name[len(PREFIX) :]: options.pop(name) for name in list(options) if name.startswith(PREFIX)}
        self.callback = NCACallback(run, Options.read(ours, STACK))
        super().__init__(paths, **options)

    def setup(self, stage: str = "") -> None:
        """Add the callback to the trainer, then build the datasets."""
        if self.callback not in self.trainer.callbacks:
            self.trainer.callbacks.append(self.callback)
        self.callback.attach(self)
        super().setup(stage)

    def train_dataloader(self) -> object:
        """Restore the record of the checkpoint that has been read, before NeMo's sampler looks for what it has left."""
        loader = super().train_dataloader()
        self.callback.restore()
        return loader


def _signature() -> inspect.Signature:
    """Name every argument, as NeMo's checkpoints and NeMo-Run's command line read them off the signature."""
    self, paths, *_ = inspect.signature(NCADataModule.__init__).parameters.values()
    theirs = inspect.signature(pre_training.PreTrainingDataModule.__init__).parameters.values()
    rest = [item for item in theirs if item.name not in ("self", "paths")]
    # NeMo-Run's parser reads unions only as typing writes them.
    kind = typing.Union[list[str], dict[str, list[str]]]
    return inspect.Signature([self, paths.replace(annotation=kind), *parameters(STACK), *rest])


NCADataModule.__init__.__signature__ = _signature()  # type: ignore[attr-defined]


def with_nca(recipe: R, *paths: str, **settings: object) -> R:
    """Override a pre-training recipe's data.

    Args:
        recipe: A NeMo-Run Partial with ``data``, as ``llm.llama3_8b.pretrain_recipe()`` returns it; changed in place.
        *paths: A whole data path, weights included, as after Megatron-LM's ``--data-path``; or phases alone
            (``nca:tokens=164M``), which then come before the recipe's own paths.
        **settings: ``NCADataModule``'s ``nca_`` arguments, and any of PreTrainingDataModule's.

    Returns:
        The recipe.

    Raises:
        NCAError: The recipe has no data, mock data and no text is given, or it has been overridden before.
    """
    import nemo_run

    arguments = list(inspect.signature(NCADataModule).parameters)
    unknown = sorted(set(settings) - set(arguments))
    if unknown:
        raise NCAError(f"with_nca: {unknown[0]}= is no argument of NCADataModule; it takes {', '.join(arguments)}")
    data: DataConfig | None = getattr(recipe, "data", None)
    if data is None:
        raise NCAError("with_nca: the recipe has no data; give it a data module first, or use a pre-training recipe")
    existing = getattr(data, "paths", None)
    check_paths(paths, words_of(existing), STACK)
    options = {name: value for name, value in data.__arguments__.items() if name in arguments}
    recipe.data = nemo_run.Config(NCADataModule, **(options | settings | {"paths": _joined(paths, existing, data)}))
    return recipe


def _joined(paths: Sequence[str], existing: object, data: DataConfig) -> object:
    if not are_phases(paths):
        return list(paths)
    if not existing:
        raise no_text(paths, f"the recipe's data is {data.__fn_or_cls__.__name__} without paths", STACK)
    if isinstance(existing, dict):
        return {**existing, "train": _before(paths, as_list(existing["train"]))}
    return _before(paths, as_list(existing))


def _before(phases: Sequence[str], paths: list[object]) -> list[object]:
    """Put phases before paths, with weights where those have them."""
    if pre_training.is_zipped_list([str(path) for path in paths]):
        return [item for phase in phases for item in ("1", phase)] + paths
    return [*phases, *paths]


__all__ = ["NCACallback", "NCADataModule", "register", "with_nca"]
