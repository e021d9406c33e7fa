"""FP8 state in checkpoints that Transformer Engine will not read: told before a run starts that could not go on.

Delayed scaling's histories and scales are pickled. Transformer Engine 2.16.1, and every version from 2.17.1 on, refuses to load
a pickle unless the environment says that the checkpoint is trusted. A run does not notice until its first restart.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Mapping

from megatron_nca.interfaces.megatron_lm import Arguments

VARIABLE = "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE"
DELAYED = "delayed"
"""Megatron's name of the recipe, and its default."""

_BACKPORT, _FIRST = (2, 16, 1), (2, 17, 1)


def installed_version() -> str | None:
    """Return the version of Transformer Engine here, or None."""
    try:
        return importlib.metadata.version("transformer-engine")
    except importlib.metadata.PackageNotFoundError:
        return None


def is_refused(version: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a version of Transformer Engine would refuse to resume delayed scaling in an environment."""
    found = tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
    return (found == _BACKPORT or found >= _FIRST) and environment.get(VARIABLE) != "1"


def advice(args: Arguments | None, version: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what to tell of a launch that would not resume, or None.

    Args:
        args: Megatron-LM's arguments, as far as they are known.
        version: Version of Transformer Engine; None where it is not installed, as where a launch is only planned.
        environment: The launch's.
    """
    if not getattr(args, "fp8", None) and not getattr(args, "fp8_format", None):
        return None
    if getattr(args, "fp8_recipe", None) not in (None, DELAYED) or not is_refused(version or "2.17.1", environment):
        return None
    name = f"Transformer Engine {version}" if version else "Transformer Engine 2.16.1, and from 2.17.1 on,"
    return (
        f"{name} will refuse to resume this run: it keeps FP8 delayed scaling's state as a pickle. Set {VARIABLE}=1 for "
        "checkpoints that you trust, your own, or choose another --fp8-recipe"
    )
