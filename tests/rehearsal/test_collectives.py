"""Collectives of two ranks on gloo, asked for together as Megatron asks NCCL."""

import pytest
import torch

from megatron_nca.rehearsal import install

TYPES = (torch.uint8, torch.bfloat16, torch.uint8, torch.float32)


def value(rank, place):
    return 1 + rank + 2 * place


def on_rank(rank, store):
    """Gather, scatter and reduce buffers of several types; called in a process of its own."""
    install()
    import torch.distributed as dist

    dist.init_process_group("nccl", rank=rank, world_size=2, init_method=f"file://{store}")
    for asynchronous in (False, True):
        gather(rank, asynchronous)
        reduce(rank, asynchronous)
    send(rank)
    dist.destroy_process_group()


def coalescing(asynchronous):
    from torch.distributed import _coalescing_manager

    return _coalescing_manager(None, async_ops=asynchronous)


def gather(rank, asynchronous):
    import torch.distributed as dist

    parts = [torch.full((100 + place,), value(rank, place), dtype=dtype) for place, dtype in enumerate(TYPES)]
    wholes = [torch.zeros(2 * part.numel(), dtype=part.dtype) for part in parts]
    with coalescing(asynchronous) as works:
        for whole, part in zip(wholes, parts, strict=True):
            dist.all_gather_into_tensor(whole, part, async_op=asynchronous)
    if asynchronous:
        works.wait()
    for place, whole in enumerate(wholes):
        expected = torch.cat([torch.full((100 + place,), value(other, place), dtype=whole.dtype) for other in range(2)])
        assert torch.equal(whole, expected), (place, whole.dtype)


def reduce(rank, asynchronous):
    import torch.distributed as dist

    tensors = [torch.full((50,), value(rank, place), dtype=dtype) for place, dtype in enumerate(TYPES[1:])]
    parts = [torch.zeros(25, dtype=tensor.dtype) for tensor in tensors]
    with coalescing(asynchronous) as works:
        for part, tensor in zip(parts, tensors, strict=True):
            dist.reduce_scatter_tensor(part, tensor.clone(), async_op=asynchronous)
    if asynchronous:
        works.wait()
    with coalescing(asynchronous) as works:
        for tensor in tensors:
            dist.all_reduce(tensor, async_op=asynchronous)
    if asynchronous:
        works.wait()
    for place, (part, tensor) in enumerate(zip(parts, tensors, strict=True)):
        total = value(0, place) + value(1, place)
        assert (part == total).all(), (place, part.dtype)
        assert (tensor == total).all(), (place, tensor.dtype)


def send(rank):
    """A tensor whose memory is given away before its sending is waited for, as pipelines do."""
    import torch.distributed as dist

    mine, theirs = torch.full((1 << 20,), 1.0 + rank), torch.empty(1 << 20)
    works = dist.batch_isend_irecv([dist.P2POp(dist.isend, mine, 1 - rank), dist.P2POp(dist.irecv, theirs, 1 - rank)])
    mine.fill_(-1)
    for work in works:
        work.wait()
    assert (theirs == 2 - rank).all()


@pytest.mark.filterwarnings("ignore")
def test_buffers_of_several_types_are_not_mixed_up(tmp_path):
    torch.multiprocessing.spawn(on_rank, args=(tmp_path / "store",), nprocs=2)
