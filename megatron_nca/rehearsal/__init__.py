"""A CPU stand-in for the GPU, and a harness that runs Megatron-LM on it.

`install()` makes PyTorch present this machine's CPU as a CUDA device, after which Megatron's own training loop runs without
a GPU. `python -m megatron_nca.rehearsal [--plain] SCRIPT ARGS...` does so for a whole script, and
`megatron_nca.rehearsal.megatron_lm` starts, interrupts and reads whole runs of Megatron-LM.
"""

__all__ = ["install", "installed"]


def install() -> None:
    """Present the CPU as a CUDA device; see `megatron_nca.rehearsal.stand_in.install`."""
    from megatron_nca.rehearsal import stand_in
    from megatron_nca.rehearsal.ending import end_with_parent

    end_with_parent()
    stand_in.install()


def installed() -> bool:
    """Return whether the CPU stands in for a CUDA device in this process."""
    from megatron_nca.rehearsal import stand_in

    return stand_in.installed()
