"""Which checkouts of Megatron-LM go with the Transformer Engine that is installed."""

import pytest

from megatron_nca.rehearsal.checkouts import find_checkouts
from megatron_nca.rehearsal.extension import loading

FIRST_WITH_NEWER_CORE = (2, 17)


def checkouts():
    """The checkouts that `MEGATRON_LM` names, as far as they go with this Transformer Engine; else one that skips."""
    reason = "MEGATRON_LM names no checkout of Megatron-LM that goes with the installed Transformer Engine"
    missing = pytest.param(None, marks=pytest.mark.skip(reason=reason))
    if not loading.available():
        return [missing]
    newer = loading.installed_version() >= FIRST_WITH_NEWER_CORE
    return [checkout for checkout in find_checkouts() if (checkout.version >= (0, 17, 0)) == newer] or [missing]
