"""Tests of Transformer Engine's own Python over the emulated extension; those that need it skip, saying so, where it is not."""

import functools
import sys

import pytest

from megatron_nca.rehearsal.extension import loading

if loading.available():
    # Transformer Engine and Megatron look at the machine when they are imported, which test modules do.
    from megatron_nca.rehearsal import install

    install()

needs_transformer_engine = pytest.mark.skipif(
    not loading.available(), reason="Transformer Engine's Python is not installed; make test-te brings it"
)


@pytest.fixture
def blackwell(monkeypatch):
    """A GPU that has MXFP8; Transformer Engine and PyTorch are asked anew what it can do."""
    from megatron_nca.rehearsal.extension import machine
    from megatron_nca.rehearsal.stand_in import queries

    def present():
        queries.set_capability(machine.capability())
        for name in ("utils", "quantization", "fp8"):
            module = sys.modules.get(f"transformer_engine.pytorch.{name}", object)
            for key, value in list(vars(module).items()):
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()
                elif key.endswith("_SUPPORT"):
                    # Where newer versions keep their answers.
                    setattr(module, key, None)

    with monkeypatch.context() as patched:
        patched.setenv(machine.VARIABLE, "10.0")
        present()
        yield
    present()
