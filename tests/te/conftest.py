"""Tests of Transformer Engine's own Python over the emulated extension; those that need it skip, saying so, where it is not."""

import pytest

from megatron_nca.testing.extension import loading

if loading.available():
    # Transformer Engine and Megatron look at the machine when they are imported, which test modules do.
    from megatron_nca.testing import install

    install()

needs_transformer_engine = pytest.mark.skipif(
    not loading.available(), reason="Transformer Engine's Python is not installed; make test-te brings it"
)


@pytest.fixture
def watched():
    """(quantizer, values, scale of each) of every cast in the test."""
    from megatron_nca.testing.extension import quantizing

    seen = []

    def watch(quantizer, values, scale):
        seen.append((quantizer, values, scale.clone()))

    quantizing.WATCHERS.append(watch)
    yield seen
    quantizing.WATCHERS.remove(watch)
