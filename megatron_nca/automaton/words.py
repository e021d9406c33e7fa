# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
"""Eight bytes of an array at once, and where two such words first differ: what comparing bytes quickly takes.

Every machine that Megatron runs on is little-endian, so a word's low byte is the first.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD_BYTES = 8


def _word_at(typingctx, array, place):
    """Bytes ``place`` to ``place + 7`` of a uint8 array as uint64. They must be there: nothing is checked."""
    if not (isinstance(array, types.Array) and array.dtype == types.uint8 and isinstance(place, types.Integer)):
        return None

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        number = context.cast(builder, arguments[1], signature.args[1], types.intp)
        pointer = cgutils.gep_inbounds(builder, view.data, number)
        loaded = builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()))
        loaded.align = 1
        return loaded

    return types.uint64(array, place), generate


def _equal_bytes(typingctx, difference):
    """Return how many low bytes of a uint64 are zero; 8 for zero."""
    if difference != types.uint64:
        return None

    def generate(context, builder, signature, arguments):
        zeros = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.lshr(zeros, ir.Constant(ir.IntType(64), 3))

    return types.int64(difference), generate


# Numba gives the first parameter itself, which the annotations of ``intrinsic`` do not say.
word_at: Any = intrinsic(_word_at)
equal_bytes: Any = intrinsic(_equal_bytes)
