"""The seams: ``nca:`` entries and phases are understood wherever Megatron-Core reads a data path and builds its datasets."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from typing import Any

from megatron_nca.data.phase_word import is_number, is_ours
from megatron_nca.data.run import Run
from megatron_nca.errors import EnvironmentMismatchError

logger = logging.getLogger(__name__)

KNOWN_VERSIONS = ((0, 14), (0, 20))
BUILDER_ARGUMENTS = ["self", "cls", "sizes", "is_built_on_rank", "config"]


def with_curriculum(run: Run) -> Callable[[Any], Any]:
    """Return what makes ``BlendedMegatronDatasetBuilder.build`` understand entries, and tell a run of its plan.

    Args:
        run: The run of this process.
    """

    def wrap(build: Any) -> Any:
        from megatron_nca.data.builder import build_datasets

        def build_with_curriculum(self: Any) -> list[Any]:
            return build_datasets(self, build, run)

        return build_with_curriculum

    return wrap


def with_words(get_blend_from_list: Any) -> Any:
    """Return what leaves a data path alone where a word of ours stands among words without weights, for us to read.

    Megatron reads weights where every second word is a number, and where some are it ends in an assertion.
    """

    def get_blend(blend: Any) -> Any:
        words = [] if blend is None else [str(word).strip() for word in blend]
        weighted = len(words) % 2 == 0 and all(is_number(word) for word in words[::2])
        if weighted or not any(is_ours(word) for word in words):
            return get_blend_from_list(blend)
        return words, None

    return get_blend


def builder_class() -> Any:
    """Import Megatron-Core's dataset builder and check its form.

    Raises:
        EnvironmentMismatchError: The builder is missing or has another form than megatron-nca knows.
    """
    try:
        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"megatron-nca needs Megatron-Core {_known()} and torch, and importing its dataset builder failed: {error}"
        ) from error
    check_version(BlendedMegatronDatasetBuilder)
    return BlendedMegatronDatasetBuilder


def check_version(builder: Any) -> None:
    """Refuse an older version and a dataset builder of another form, and let rank 0 warn of a version that was not tested.

    Raises:
        EnvironmentMismatchError: The version is too old, or its arguments are not those that megatron-nca knows.
    """
    from megatron.core import __version__

    release = tuple(int(part) for part in __version__.split(".")[:2])
    if release < KNOWN_VERSIONS[0]:
        raise EnvironmentMismatchError(f"Megatron-Core {__version__} is too old for megatron-nca; use {_known()}")
    arguments = list(inspect.signature(builder.__init__).parameters)
    if arguments != BUILDER_ARGUMENTS or not hasattr(builder, "build"):
        raise EnvironmentMismatchError(
            f"Megatron-Core {__version__}: BlendedMegatronDatasetBuilder takes {arguments}, megatron-nca knows "
            f"{BUILDER_ARGUMENTS}; use Megatron-Core {_known()}"
        )
    # Before process groups are made, the launcher's variable tells a rank its number.
    if release > KNOWN_VERSIONS[1] and os.environ.get("RANK", "0") == "0":
        logger.warning("megatron-nca was tested with Megatron-Core %s; this is %s", _known(), __version__)


def _known() -> str:
    return " to ".join(".".join(map(str, version)) for version in KNOWN_VERSIONS)
