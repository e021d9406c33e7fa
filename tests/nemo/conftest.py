"""Where Transformer Engine's Python is installed, its extension is emulated before NeMo is imported."""

from megatron_nca.rehearsal.extension import loading

if loading.available():
    from megatron_nca.rehearsal import install

    install()
