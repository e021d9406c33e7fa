"""The CPU as a CUDA device: enough of `torch.cuda` for Megatron's training loop to run, exactly, without a GPU.

One file for each thing that Megatron asks of a GPU:

| file | what it replaces |
|---|---|
| `queries` | `torch.cuda`'s questions and orders: availability, device, properties, memory, profiler |
| `devices` | device arguments: "cuda", "cuda:0", 0 and `torch.device("cuda")` mean the CPU; `Tensor.cuda`, `Tensor.type` |
| `streams` | streams, events and device contexts: work is done when the call returns |
| `generators` | the device's random numbers, apart from the host's, so that runs resume exactly |
| `collectives` | NCCL process groups become gloo groups |
| `context_parallel` | attention over a sequence that several ranks hold, a GPU kernel's work |
| `extensions` | compilers: `torch.compile`, Triton and Megatron-LM's fused kernels are left out |
| `fused_adam` | Apex's fused optimizers, in plain PyTorch |
| `state_space` | `mamba_ssm`, `causal_conv1d`, `fla` and `fast_hadamard_transform`, in plain PyTorch |
| `processes` | spawned processes get the stand-in too |

Where Transformer Engine's Python is installed, `megatron_nca.rehearsal.extension` takes its compiled extension's place.

Tensors stay what they are, CPU tensors: `tensor.device` says `cpu`, and `tensor.is_cuda` is False unless Transformer Engine is
there, which asks for it. A transfer between the host
and the device copies nothing, so `tensor.cuda()` and `tensor.cpu()` share storage with `tensor`.
"""

import torch

from megatron_nca.rehearsal.stand_in import (
    collectives,
    context_parallel,
    devices,
    extensions,
    fused_adam,
    generators,
    processes,
    queries,
    state_space,
    streams,
)

_installed = False


def install() -> None:
    """Present the CPU as a CUDA device to this process, from here on.

    Replaces functions and classes of `torch`, `torch.cuda` and `torch.distributed`; the files of this package document
    which. Calling it again does nothing. Call it before Megatron is imported: Megatron decides at import what the GPU can do.

    Raises:
        RuntimeError: If there is a real CUDA device.
    """
    global _installed
    if _installed:
        return
    _refuse_real_cuda()
    around_torch = (extensions, fused_adam, devices, queries, streams, generators, collectives, processes)
    for part in (*around_torch, context_parallel, state_space):
        part.install()
    from megatron_nca.rehearsal.extension import loading

    loading.install()
    _installed = True


def installed() -> bool:
    """Return whether the CPU stands in for a CUDA device in this process."""
    return _installed


def _refuse_real_cuda() -> None:
    if torch.cuda.is_available():
        raise RuntimeError(
            f"megatron_nca.rehearsal stands in for a missing GPU, and this machine has {torch.cuda.device_count()}. "
            "Run without the stand-in, or hide the GPUs with CUDA_VISIBLE_DEVICES=''"
        )
