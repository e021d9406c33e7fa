"""Bridge's tests import what a machine without a GPU lacks under its name alone."""

import importlib.util

if importlib.util.find_spec("megatron") is not None and importlib.util.find_spec("megatron.bridge") is not None:
    from tests.bridge import te_names

    te_names.provide()
