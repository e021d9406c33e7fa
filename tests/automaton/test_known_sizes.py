import pytest

from megatron_nca.automaton import deflate, known_sizes
from megatron_nca.errors import EnvironmentMismatchError


@pytest.fixture(autouse=True)
def fresh_check():
    known_sizes.check_sizes.cache_clear()
    yield
    known_sizes.check_sizes.cache_clear()


def test_this_machine_passes():
    known_sizes.check_sizes()


def test_a_score_that_is_another_is_told(monkeypatch):
    deflated = deflate.deflated_size
    monkeypatch.setattr(known_sizes, "deflated_size", lambda data: deflated(data) + (len(set(data)) > 40))
    with pytest.raises(
        EnvironmentMismatchError, match=r"complexity score of \d+ of 24 known inputs is not what it is on other"
    ):
        known_sizes.check_sizes()


def test_the_inputs_are_as_long_as_probes_and_all_different():
    samples = known_sizes.samples()
    assert len(samples) == len(known_sizes.KNOWN_SIZES) == len(set(samples))
    assert {len(sample) for sample in samples} == {1440}
