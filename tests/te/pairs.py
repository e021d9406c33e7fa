"""Which checkouts of Megatron-LM go with the Transformer Engine that is installed."""

from megatron_nca.testing.checkouts import find_checkouts
from megatron_nca.testing.extension import loading

FIRST_WITH_NEWER_CORE = (2, 17)


def checkouts():
    """The checkouts that `MEGATRON_LM` names, as far as they go with this Transformer Engine."""
    if not loading.available():
        return []
    newer = loading.installed_version() >= FIRST_WITH_NEWER_CORE
    return [checkout for checkout in find_checkouts() if (checkout.version >= (0, 17, 0)) == newer]
