"""Processes that end with the one that started them, also where that one is killed and can no longer end them."""

import os

from megatron_nca import workers

VARIABLE = "MEGATRON_NCA_END_WITH_PARENT"
"""Set in the environment of a test session, and so of all that it starts; elsewhere a run may outlive its shell."""


def end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, if the environment asks for it.

    A process that was started by multiprocessing's spawn imports the script again, so that whatever the script calls at its top
    level, this too, reaches Megatron-Core's checkpoint writers.
    """
    if os.environ.get(VARIABLE):
        workers.end_with(os.getppid())
