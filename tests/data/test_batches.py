import pytest
from hypothesis import given
from hypothesis import strategies as st
from megatron.core import num_microbatches_calculator as module

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
    assert calculator.get_current_global_batch_size() == reached[1], "reading the boundaries leaves Megatron's calculator alone"


@pytest.mark.parametrize("consumed", [0, 100, 437, 5000])
def test_a_resumed_ramp_goes_on_where_it_was(calculator, consumed):
    calculator.init_num_microbatches_calculator(0, [16, 16, 500], 64, 2, 4)
    walked, boundaries = consumed, BatchBoundaries.from_megatron(consumed)
    for batches in range(60):
        assert (boundaries.position_after(batches), boundaries.batches_until(walked)) == (walked, batches)
        calculator.update_num_microbatches(walked, False)
        walked += calculator.get_current_global_batch_size()


@pytest.mark.skipif(not hasattr(module, "StepBatchsizeNumMicroBatchesCalculator"), reason="since Megatron-Core 0.18")
def test_batches_in_steps_are_those_megatron_will_run(calculator):
    calculator.init_num_microbatches_calculator(0, None, None, 2, 4, step_batch_size_schedule="0:16 100:64 300:32")
    boundaries = BatchBoundaries.from_megatron()
    assert boundaries.steps == ((0, 16), (100, 64), (300, 32))
    assert [boundaries.position_after(batches) for batches in (7, 8, 10, 11, 12)] == [112, 176, 304, 336, 368]


@given(st.integers(1, 100), st.integers(0, 10**15))
def test_rounding_up_is_the_least_boundary(batch, samples):
    boundary = BatchBoundaries(batch).round_up(samples)
    assert boundary % batch == 0
    assert 0 <= boundary - samples < batch


@st.composite
def batches(draw):
    """Any batches, and the same as a function of the position."""
    begin = draw(st.integers(0, 300))
    edges = draw(st.lists(st.integers(1, 400), max_size=4, unique=True))
    steps = [(0, draw(st.integers(1, 30))), *((edge, draw(st.integers(1, 30))) for edge in sorted(edges))]
    boundaries = BatchBoundaries(begin=begin, steps=steps)
    for _ in range(draw(st.integers(0, 3))):
        position = boundaries.round_up(begin + draw(st.integers(0, 200)))
        if boundaries.phase_batches and boundaries.phase_batches[-1].end is None:
            break
        begin_own = max(position, boundaries.phase_batches[-1].end if boundaries.phase_batches else 0)
        size = draw(st.integers(1, 30))
        length = draw(st.one_of(st.none(), st.integers(1, 9)))
        boundaries = boundaries.with_phase_batch(begin_own, None if length is None else begin_own + length * size, size)
    return boundaries


def walk(boundaries, until):
    """Boundaries one by one, as a training loop meets them."""
    position = boundaries.begin
    while position <= until:
        yield position
        position += boundaries.size_at(position)


@given(batches())
def test_boundaries_are_those_of_a_loop_that_asks_for_each_batchs_size(boundaries):
    walked = list(walk(boundaries, 1200))
    assert [boundaries.position_after(number) for number in range(len(walked))] == walked
    assert [boundaries.batches_until(position) for position in walked] == list(range(len(walked)))
    for samples in range(boundaries.begin, 1000):
        assert boundaries.round_up(samples) == next(position for position in walked if position >= samples)
        assert boundaries.batches_until(samples) == sum(position <= samples for position in walked) - 1


def test_a_phase_has_its_own_batches_and_leaves_the_runs_alone():
    boundaries = BatchBoundaries(32).with_phase_batch(0, 80, 8)
    assert [boundaries.size_at(position) for position in (0, 79, 80)] == [8, 8, 32]
    assert (boundaries.batches_until(80), boundaries.position_after(12)) == (10, 144)
    assert boundaries.run_size_at(0) == 32


def test_a_far_boundary_costs_no_more_than_a_near_one():
    boundaries = BatchBoundaries(512).with_phase_batch(0, 160_256, 64)
    assert boundaries.position_after(10**15) == 160_256 + (10**15 - 2504) * 512
    assert boundaries.batches_until(boundaries.position_after(10**15)) == 10**15
