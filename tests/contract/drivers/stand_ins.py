"""The packages of the frameworks: the real ones where they are installed, else the stand-ins beside this folder.

Of the real ones the classes are used, and the functions that would need a GPU are replaced before megatron-nca wraps them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import megatron_nca
import megatron_nca.rehearsal
from megatron_nca.training.run import CustomLoop

STAND_INS = Path(__file__).parents[1] / "stand_ins"


def is_real(package: str) -> bool:
    """Tell whether a package is installed, and not a stand-in that an earlier driver has provided."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return False
    return found is not None and not str(found.origin or "").startswith(str(STAND_INS))


def provide(package: str) -> None:
    """See to it that a package can be imported: the real one, or its stand-in."""
    if is_real(package):
        # The real ones ask for a GPU when they are imported; NeMo's do not.
        if package.startswith("megatron."):
            megatron_nca.rehearsal.install()
        return
    if str(STAND_INS) not in sys.path:
        sys.path.append(str(STAND_INS))
    if package.startswith("megatron."):
        # megatron is a package of Megatron-Core's, whose path was fixed when it was imported.
        import megatron

        if str(STAND_INS / "megatron") not in megatron.__path__:
            megatron.__path__.append(str(STAND_INS / "megatron"))
    importlib.invalidate_caches()


def withdraw() -> None:
    """Take the stand-ins away again, and what was imported of them, and begin a new run."""
    import megatron

    for places in (sys.path, megatron.__path__):
        places[:] = [place for place in places if not str(place).startswith(str(STAND_INS))]
    files = {name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}
    of_stand_ins = [name for name, file in files.items() if file.startswith(str(STAND_INS))]
    adapters = [
        name for name in files if name.startswith(("megatron_nca.frameworks.nemo", "megatron_nca.frameworks.megatron_b"))
    ]
    for name in [*of_stand_ins, *(adapters if of_stand_ins else [])]:
        del sys.modules[name]
    importlib.invalidate_caches()
    megatron_nca.register().attach(CustomLoop())
