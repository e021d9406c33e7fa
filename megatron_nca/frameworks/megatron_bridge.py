"""Megatron-Bridge: ``with_nca`` for its configs, and the callback that names a run's options in a script.

    cfg = with_nca(llama3_8b_pretrain_config(), "nca:tokens=164M", "/data/text_document")
    pretrain(cfg, forward_step)

Every ``pretrain`` is carried across the switch without a word in the script, see ``bridge_launch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import megatron_nca
from megatron_nca.data.curriculum import Blend
from megatron_nca.data.overriding import are_phases, check_paths, no_text
from megatron_nca.errors import EnvironmentMismatchError, NCAError
from megatron_nca.frameworks.bridge_config import shared_blend
from megatron_nca.frameworks.bridge_launch import STACK
from megatron_nca.interfaces.bridge import CallbackContext, DatasetConfig
from megatron_nca.training.options import Options

try:
    from megatron.bridge.training.callbacks import Callback
except ImportError as error:
    raise EnvironmentMismatchError(
        f"megatron-nca's Bridge adapter needs Megatron-Bridge 0.3 or later and Transformer Engine, and importing it "
        f"failed: {error}"
    ) from error

Config = TypeVar("Config")


class NCACallback(Callback):
    """Gives a ``pretrain`` its options where no override does.

    Args:
        **options: The rows of ``megatron_nca.training.options.OPTIONS``, as in ``NCACallback(lr=1e-4, reinit="none")``.

    Raises:
        NCAError: There is no such option, or its value is not usable.
    """

    def __init__(self, **options: object) -> None:
        megatron_nca.register()
        self.nca_options = Options.read(options, STACK)

    def on_train_start(self, context: CallbackContext) -> None:
        """Do nothing: by this a callback manager knows of the callback."""


def with_nca(cfg: Config, *paths: str) -> Config:
    """Put ``nca:`` entries into a pre-training config.

    Args:
        cfg: Bridge's ConfigContainer, or anything with a ``dataset`` that has a ``blend``; changed in place.
        *paths: A whole data path, weights included, or phases alone, which then come before the config's own blend.

    Returns:
        The config.

    Raises:
        NCAError: The config has no blend and no text is given, its dataset takes none, or it has been overridden before.
    """
    from megatron.core.datasets.utils import get_blend_from_list

    megatron_nca.register()
    dataset: DatasetConfig | None = getattr(cfg, "dataset", None)
    if dataset is None or not hasattr(dataset, "blend") or getattr(dataset, "mock", False):
        raise NCAError(
            f"with_nca: cfg.dataset is {type(dataset).__name__}, which reads no data path; give the config a GPTDatasetConfig"
        )
    blend = shared_blend(dataset)
    blends = (blend, *(dataset.blend_per_split or []))
    check_paths(paths, [prefix for one in blends if one for prefix in one[0]], STACK)
    if not are_phases(paths):
        dataset.blend, dataset.blend_per_split = get_blend_from_list(list(paths)), None
    elif dataset.blend_per_split:
        dataset.blend_per_split = [_before(paths, dataset.blend_per_split[0]), *dataset.blend_per_split[1:]]
    else:
        dataset.blend = _before(paths, blend)
    return cfg


def _before(phases: Sequence[str], blend: Blend | None) -> tuple[list[str], list[float] | None]:
    if not blend:
        raise no_text(phases, f"cfg.dataset.blend is {blend}, which means mock data", STACK)
    prefixes, weights = blend
    return [*phases, *prefixes], None if weights is None else [1.0] * len(phases) + list(weights)


register = megatron_nca.register

__all__ = ["NCACallback", "register", "with_nca"]
