"""Bridge's tests import what a machine without a GPU lacks: emulated where its Python is there, else under its name alone."""

import importlib.util

from megatron_nca.rehearsal.extension import loading

if importlib.util.find_spec("megatron") is not None and importlib.util.find_spec("megatron.bridge") is not None:
    if loading.available():
        from megatron_nca.rehearsal import install

        install()

    from megatron_nca.rehearsal.bridge import names

    names.provide()
