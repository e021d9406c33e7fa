"""The stacks over which every scenario runs."""

import importlib.util

import pytest

if importlib.util.find_spec("megatron.bridge") is not None:
    # The real Bridge, and what it looks for when it is imported.
    from tests.bridge import te_names

    te_names.provide()

from megatron.core import num_microbatches_calculator as calculator
from megatron.core import parallel_state

from tests.contract.drivers import DRIVERS, withdraw

FRAMEWORKS = [name for name in DRIVERS if name != "Megatron-Core"]


@pytest.fixture(scope="module")
def one_rank(process_group):
    parallel_state.initialize_model_parallel()
    yield
    parallel_state.destroy_model_parallel()
    calculator.unset_num_microbatches_calculator()


@pytest.fixture(scope="package", autouse=True)
def stand_ins():
    yield
    withdraw()


@pytest.fixture(scope="module", params=list(DRIVERS))
def stack(request, one_rank, tmp_path_factory):
    """Each framework, and a loop of one's own."""
    return DRIVERS[request.param](tmp_path_factory.mktemp("cache"))


@pytest.fixture
def framework(stack):
    """Each framework alone."""
    if stack.stack.name not in FRAMEWORKS:
        pytest.skip("not a moment of a loop of one's own")
    return stack
