"""The stacks over which every scenario runs."""

import importlib.util

import pytest

if importlib.util.find_spec("megatron.bridge") is not None:
    # The real Bridge, and what it looks for when it is imported.
    from megatron_nca.rehearsal.bridge import names

    names.provide()

from megatron.core import num_microbatches_calculator as calculator
from megatron.core import parallel_state

from tests.conftest import write_text
from tests.contract.drivers import DRIVERS
from tests.contract.drivers.stand_ins import withdraw
from tests.contract.machine import ENTRY, Launch
from tests.contract.records import SAVED

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


@pytest.fixture
def launch(text):
    return Launch((ENTRY, text))


@pytest.fixture(scope="module")
def whole(stack, text):
    """The run that nothing interrupts, with a checkpoint before, at and behind the switch."""
    outcome = stack.launch(Launch((ENTRY, text)), save_at=SAVED)
    assert outcome.error is None
    return outcome


@pytest.fixture(scope="session")
def third_text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "c", 250, seed=2)


@pytest.fixture
def path(text, other_text, third_text):
    """Return a data path whose texts are A, B and C."""
    places = {"A": text, "B": other_text, "C": third_text}
    return lambda words: tuple(places.get(word, word) for word in words.split())
