"""FP8 state in checkpoints that Transformer Engine will not read: told before a run starts that could not go on.

Delayed scaling's histories and scales are pickled. Transformer Engine 2.16.1, and every version from 2.17.1 on, refuses to load
a pickle unless the environment says that the checkpoint is trusted.

Of grouped experts ``torch_dist`` keeps this state expert by expert. Megatron-Core joins it in a hook that PyTorch's
``_load_from_state_dict`` calls (``TEGroupedLinear``'s ``merge_extra_states``). Where weights are FP8, Transformer Engine's
override of that function loads the state before it calls PyTorch's, so that the first expert's state meets the size of all.

A run does not notice either until its first restart.
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


def advices(args: Arguments | None, version: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return what to tell of a launch that would not resume; nothing of any other.

    Args:
        args: Megatron-LM's arguments, as far as they are known.
        version: Version of Transformer Engine; None where it is not installed, as where a launch is only planned.
        environment: The launch's.
    """
    if not getattr(args, "fp8", None) and not getattr(args, "fp8_format", None):
        return ()
    if getattr(args, "fp8_recipe", None) not in (None, DELAYED):
        return ()
    return tuple(filter(None, (_pickled(version, environment), _of_grouped_experts(args))))


def _pickled(version: str | None, environment: Mapping[str, str]) -> str | None:
    if not is_refused(version or "2.17.1", environment):
        return None
    name = f"Transformer Engine {version}" if version else "Transformer Engine 2.16.1, and from 2.17.1 on,"
    return (
        f"{name} will refuse to resume this run: it keeps FP8 delayed scaling's state as a pickle. Set {VARIABLE}=1 for "
        "checkpoints that you trust, your own, or choose another --fp8-recipe"
    )


def _of_grouped_experts(args: object) -> str | None:
    grouped = getattr(args, "moe_grouped_gemm", None) and not getattr(args, "moe_use_legacy_grouped_gemm", None)
    experts = _number(args, "num_experts") // max(_number(args, "expert_model_parallel_size"), 1)
    joined = getattr(args, "ckpt_format", None) in (None, "torch_dist")
    if not (grouped and experts > 1 and joined and getattr(args, "fp8_param_gather", None)):
        return None
    return (
        "this run will not go on from its checkpoints, with or without the plugin: with --fp8-param-gather, Transformer Engine "
        f"loads the FP8 state of the first of {experts} grouped experts for all of them. Give --ckpt-format torch, leave out "
        "--fp8-param-gather, or choose another --fp8-recipe"
    )


def _number(args: object, name: str) -> int:
    """Return an argument that is a number; 0 where it is none, as it may be of a launch that is only planned."""
    value = getattr(args, name, None)
    return value if isinstance(value, int) else 0
