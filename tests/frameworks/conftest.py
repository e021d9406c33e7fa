from megatron_nca.testing.extension import loading
from tests.testing.conftest import corpus, pytest_generate_tests  # noqa: F401

if loading.available():
    # Transformer Engine and Megatron look at the machine when they are imported, as the text's writer does.
    from megatron_nca.testing import install

    install()
