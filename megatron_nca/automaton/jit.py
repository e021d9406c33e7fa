"""How kernels are compiled: one entry that Python calls, and what it is made of.

Compiling takes seconds once a machine, and most of it is numba's work around a function rather than in it. So only entries get
what Python needs to call them; what is called in one place alone is inlined before anything is compiled; and reference counts,
which views alone do not need, are left out.
"""

from __future__ import annotations

from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,
    # Scores are finite integers below 2**24: no order of summation and no contraction changes them.
    "fastmath": {"contract", "reassoc", "nnan", "nsz"},
}

_INSIDE: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_INLINED: dict[str, Any] = {**_OPTIONS, "inline": "always"}

entry = njit(**_OPTIONS)
kernel = njit(**_INSIDE)
inlined = njit(**_INLINED)
