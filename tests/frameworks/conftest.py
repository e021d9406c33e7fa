from megatron_nca.rehearsal.extension import loading
from tests.rehearsal.conftest import corpus, pytest_generate_tests  # noqa: F401

if loading.available():
    # Transformer Engine and Megatron look at the machine when they are imported, as the text's writer does.
    from megatron_nca.rehearsal import install

    install()
