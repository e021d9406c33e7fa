"""Which GPU is stood in for: Hopper (9.0) unless `MEGATRON_NCA_CAPABILITY` names another, such as `10.0` for MXFP8."""

import os

VARIABLE = "MEGATRON_NCA_CAPABILITY"
_HOPPER, _BLACKWELL = (9, 0), (10, 0)


def capability() -> tuple[int, int]:
    """Return the compute capability.

    Raises:
        ValueError: If the variable is not a capability.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return _HOPPER
    major, dot, minor = named.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise ValueError(f"{VARIABLE}={named} is no compute capability; write one as 9.0 or 10.0")
    return int(major), int(minor)


def multiplies_any_layout() -> bool:
    """Return whether FP8 products take operands in any layout, as from Blackwell on; Hopper wants a transposed copy."""
    return capability() >= _BLACKWELL
