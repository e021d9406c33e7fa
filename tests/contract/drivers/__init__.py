"""Each stack, driven through its moments in its own order, over the same machine."""

from tests.contract.drivers.bridge import Bridge
from tests.contract.drivers.custom_loop import Own
from tests.contract.drivers.megatron_lm import MegatronLM
from tests.contract.drivers.nemo import NeMo

DRIVERS = {driver.stack.name: driver for driver in (MegatronLM, Bridge, NeMo, Own)}
