import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_nca.data.batches import BatchBoundaries


@pytest.fixture
def calculator():
    from megatron.core import num_microbatches_calculator as module

    yield module
    module.unset_num_microbatches_calculator()


def test_without_a_batch_size_every_sample_is_a_boundary(calculator):
    calculator.unset_num_microbatches_calculator()
    assert BatchBoundaries.from_megatron().round_up(7) == 7


def test_a_constant_batch_size_is_megatrons(calculator):
    calculator.init_num_microbatches_calculator(0, None, 48, 2, 4)
    boundaries = BatchBoundaries.from_megatron()
    assert [boundaries.round_up(samples) for samples in (0, 1, 48, 49)] == [0, 48, 48, 96]
    assert boundaries.batches_until(96) == 2


def test_growing_batches_are_those_megatron_will_run(calculator):
    calculator.init_num_microbatches_calculator(0, [16, 16, 500], 64, 2, 4)
    consumed, reached = 0, [0]
    while consumed < 2000:
        calculator.update_num_microbatches(consumed, False)
        consumed += calculator.get_current_global_batch_size()
        reached.append(consumed)
    calculator.update_num_microbatches(0, False)
    boundaries = BatchBoundaries.from_megatron()
    assert [boundaries.round_up(samples) for samples in range(1900)] == [
        next(boundary for boundary in reached if boundary >= samples) for samples in range(1900)
    ]
    assert [boundaries.batches_until(boundary) for boundary in reached] == list(range(len(reached)))
    assert calculator.get_current_global_batch_size() == 16, "reading the boundaries leaves Megatron's calculator alone"


@given(st.integers(1, 100), st.integers(0, 10**15))
def test_rounding_up_is_the_least_boundary(batch, samples):
    boundary = BatchBoundaries(batch).round_up(samples)
    assert boundary % batch == 0
    assert 0 <= boundary - samples < batch
