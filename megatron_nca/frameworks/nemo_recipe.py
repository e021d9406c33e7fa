"""``with_nca``: NeMo-Run recipes with ``nca:`` entries."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from nemo.collections.llm.gpt.data import pre_training

from megatron_nca.errors import NCAError
from megatron_nca.frameworks.data_paths import are_phases, check_paths, no_text
from megatron_nca.frameworks.nemo import STACK, NCADataModule


def with_nca(recipe: Any, *paths: str, **settings: Any) -> Any:
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
    data = getattr(recipe, "data", None)
    if data is None:
        raise NCAError("with_nca: the recipe has no data; give it a data module first, or use a pre-training recipe")
    own = getattr(data, "paths", None)
    check_paths(paths, _words(own), STACK)
    options = {name: value for name, value in data.__arguments__.items() if name in arguments}
    recipe.data = nemo_run.Config(NCADataModule, **(options | settings | {"paths": _joined(paths, own, data)}))
    return recipe


def _words(paths: Any) -> list[str]:
    if isinstance(paths, dict):
        return [word for part in paths.values() for word in _words(part)]
    return [str(path) for path in _as_list(paths)]


def _as_list(paths: Any) -> list[Any]:
    if paths is None:
        return []
    return list(paths) if isinstance(paths, (list, tuple)) else [paths]


def _joined(paths: Sequence[str], own: Any, data: Any) -> Any:
    if not are_phases(paths):
        return list(paths)
    if not own:
        raise no_text(paths, f"the recipe's data is {data.__fn_or_cls__.__name__} without paths", STACK)
    if isinstance(own, dict):
        return {**own, "train": _before(paths, _as_list(own["train"]))}
    return _before(paths, _as_list(own))


def _before(phases: Sequence[str], paths: list[Any]) -> list[Any]:
    """Put phases before paths, with weights where those have them."""
    if pre_training.is_zipped_list([str(path) for path in paths]):
        return [item for phase in phases for item in ("1", phase)] + paths
    return [*phases, *paths]
