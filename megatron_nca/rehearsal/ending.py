"""Processes that end with the one that started them, also where that one is killed and can no longer end them."""

import ctypes
import os
import signal

VARIABLE = "MEGATRON_NCA_END_WITH_PARENT"
"""Set in the environment of a test session, and so of all that it starts; elsewhere a run may outlive its shell."""

PR_SET_PDEATHSIG = 1
"""Of Linux's ``prctl``: the signal that a process gets when its parent ends."""


def end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, if the environment asks for it.

    A process that was started by multiprocessing's spawn imports the script again, so that whatever the script calls at its top
    level, this too, reaches Megatron-Core's checkpoint writers.
    """
    if not os.environ.get(VARIABLE):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended in between, and nobody would tell.
        os.kill(os.getpid(), signal.SIGKILL)
