"""One run on Megatron-Core, from its first line to its last: `python -m examples.quickstart.train JOB.json FOLDER`.

The plugin has four moments in it: `register()`, `run.validate()`, `run.before_step()` and `run.state_dict()`; the rest is any
Megatron-Core training loop. A run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import megatron_nca
from examples.quickstart.text import SPLIT, ByteLevelBPE
from megatron_nca.atomic_files import atomic_write
from megatron_nca.training.options import Options
from megatron_nca.training.run import CustomLoop

BATCH = 8
"""Samples of an optimizer step."""
VALIDATION_SAMPLES = 128
COPIED_AFTER = 3
"""A token is copyable if the last place in its context where the same three tokens stood tells it."""


@dataclass(frozen=True)
class Job:
    """What decides every number that a run writes.

    Attributes:
        name: The run's name.
        text: Prefix of the text, as `--data-path` takes it.
        tokenizer: Its file.
        first: What is trained on first, as a word of a data path with `tokens=`; empty for nothing.
        seed: Seed of the weights, of the text's order and of the automata.
        text_tokens: Tokens of text.
        lr: Peak learning rate on text.
        embedding_lr: The same of input and output embeddings, which are new at the switch and have far to go.
        nca_lr: Peak learning rate of the NCA phase.
        nca_embedding_lr: The same of the embeddings; low, so that the layers have to learn what any embeddings can use.
        validate_every: Tokens of text between two validations.
        bf16: Whether the model computes in bf16, with float32 masters; in float32 otherwise.
        shape: Shape of the model, where it is not the default.
    """

    name: str
    text: str
    tokenizer: str
    first: str = ""
    seed: int = 1
    text_tokens: int = 4_000_000
    lr: float = 4e-3
    embedding_lr: float = 3e-2
    nca_lr: float = 2e-3
    nca_embedding_lr: float = 5e-3
    validate_every: int = 250_000
    bf16: bool = False
    shape: dict[str, int] = field(default_factory=dict)


def train(job: Job, folder: Path, carry: Callable[..., None] | None = None) -> dict[str, Any]:
    """Train a run to its end, from its checkpoint where there is one.

    Args:
        job: The run.
        folder: Folder for its checkpoint and for `result.json`.
        carry: For a control whose first data are none of the plugin's: called before every step in place of its transition.

    Returns:
        What `result.json` holds: job, steps (losses), validations, nca (of held-out rules) and seconds.
    """
    begin_process(job.seed)
    from examples.quickstart.model import FINAL_SHARE, Shape, build_model, build_optimizer, build_scheduler

    shape = Shape(**job.shape)
    first_steps, text_steps = (-(-tokens // (BATCH * shape.sequence)) for tokens in (_tokens_first(job), job.text_tokens))
    steps = first_steps + text_steps

    run = megatron_nca.register()
    run.attach(CustomLoop(lambda line: print(line, flush=True)))
    if job.first.startswith("nca:"):
        run.validate(
            Options(
                lr=job.nca_lr, min_lr=job.nca_lr * FINAL_SHARE, decoupled_lr=job.nca_embedding_lr,
                decoupled_min_lr=job.nca_embedding_lr * FINAL_SHARE, valid=None if "control=" in job.first else 32,
            )
        )  # fmt: skip
    tokenizer = ByteLevelBPE(Path(job.tokenizer))
    training, validation = build_datasets(job, tokenizer, shape.sequence, steps * BATCH, folder / "index-cache")
    model = build_model(shape, tokenizer.vocab_size, job.bf16)
    optimizer = build_optimizer(model, job.lr, job.embedding_lr)
    scheduler = build_scheduler(optimizer, job.lr, steps * BATCH, text_steps * BATCH)

    result: dict[str, Any] = {"job": asdict(job), "steps": [], "validations": [], "nca": [], "seconds": 0.0}
    checkpoint, step, record = folder / "checkpoint.pt", 0, None
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        step, record, result = saved["step"], saved["curriculum"], saved["result"]
        for name, part in (("model", model), ("optimizer", optimizer), ("scheduler", scheduler)):
            part.load_state_dict(saved[name])
    run.restore(record, step * BATCH)

    batches = read_batches(training, step, steps)
    held_out = held_out_text(validation)
    while step < steps:
        begin = time.monotonic()
        run.before_step(step * BATCH, [model], optimizer, scheduler)
        if carry is not None:
            carry(step * BATCH, [model], optimizer, scheduler)
        loss = train_step(model, optimizer, scheduler, batches, shape.sequence)
        step += 1
        result["steps"].append(round(loss, 5))
        text_tokens = (step - first_steps) * BATCH * shape.sequence
        if (step < first_steps and step % 50 == 0) or step == first_steps:
            result["nca"].append({"step": step, **run.evaluate([model], step)})
        if text_tokens > 0 and (text_tokens % job.validate_every < BATCH * shape.sequence or step == steps):
            result["validations"].append({"tokens": text_tokens, **validate(model, *held_out)})
        result["seconds"] += time.monotonic() - begin
        if step % 100 == 0 or step in (first_steps, steps):
            place = {"step": step, "of": steps, "first": first_steps, "step_tokens": BATCH * shape.sequence}
            write_json(folder / "result.json", result | place)
        if step % 500 == 0 or step in (first_steps, steps):
            state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
            kept = {"step": step, "curriculum": run.state_dict(step * BATCH), "result": result}
            with atomic_write(checkpoint) as partial:
                torch.save(kept | {name: part.state_dict() for name, part in state.items()}, partial)
    return result


def bf16_pays() -> bool:
    """Tell whether bf16 is faster: on a GPU, and on a CPU with instructions for it; others take 1.4 times as long."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.cuda.is_available() or any(found.get(name) for name in ("amx_bf16", "avx512_bf16"))


def begin_process(seed: int) -> None:
    """Join Megatron's world of one rank, on the GPU or with the CPU in its place, and seed all random numbers."""
    logging.getLogger("megatron").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if not torch.cuda.is_available():
        # One core for each of the two runs.
        torch.set_num_threads(1)
        from megatron_nca.rehearsal import install

        install()
    from megatron.core import parallel_state, tensor_parallel
    from megatron.core.num_microbatches_calculator import init_num_microbatches_calculator

    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
        parallel_state.initialize_model_parallel()
        init_num_microbatches_calculator(0, None, BATCH, BATCH, 1)
    np.random.seed(seed)
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)


def build_datasets(job: Job, tokenizer: ByteLevelBPE, sequence: int, samples: int, cache: Path) -> tuple[Any, Any]:
    """Build both datasets with Megatron-Core's own builder; the plugin's words stand in the blend like any prefix."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    config = GPTDatasetConfig(
        random_seed=job.seed, sequence_length=sequence, blend=([*job.first.split(), job.text], None), split=SPLIT,
        path_to_cache=str(cache), tokenizer=tokenizer, reset_position_ids=False, reset_attention_mask=False,
        eod_mask_loss=False, create_attention_mask=False,
    )  # fmt: skip
    sizes = [samples, VALIDATION_SAMPLES, 0]
    training, validation, _ = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
    return training, validation


def read_batches(dataset: Any, step: int, steps: int) -> Iterator[dict[str, torch.Tensor]]:
    """Read a dataset in its order, from a step on."""
    for number in range(step, steps):
        samples = [dataset[number * BATCH + place] for place in range(BATCH)]
        yield {key: torch.stack([sample[key] for sample in samples]).cuda() for key in samples[0]}


def train_step(model: Any, optimizer: Any, scheduler: Any, batches: Any, sequence: int) -> float:
    """Take one optimizer step by Megatron's own forward-backward schedule; return the mean loss of a label, in nats."""
    from megatron.core.pipeline_parallel import get_forward_backward_func

    model.zero_grad_buffer()
    optimizer.zero_grad()
    (sums,) = get_forward_backward_func()(
        forward_step_func=forward_step, data_iterator=batches, model=[model], num_microbatches=1, seq_length=sequence,
        micro_batch_size=BATCH, forward_only=False,
    )  # fmt: skip
    optimizer.step()
    scheduler.step(increment=BATCH)
    loss = float(sums["loss"] / sums["labels"])
    if not math.isfinite(loss):
        sys.exit(f"quickstart: the loss is {loss}; lower the learning rate")
    return loss


def forward_step(batches: Iterator[dict[str, torch.Tensor]], model: Any) -> tuple[torch.Tensor, Any]:
    """Do what Megatron-LM's `forward_step` does: losses of the labels, and how to add them up."""
    batch = next(batches)
    losses = model(batch["tokens"], batch["position_ids"], None, labels=batch["labels"])

    def add_up(losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        loss, labels = (losses.float() * batch["loss_mask"]).sum(), batch["loss_mask"].sum()
        return loss, labels.int(), {"loss": loss.detach(), "labels": labels}

    return losses, add_up


def held_out_text(validation: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the first validation samples: tokens, labels, int64 (samples, sequence), and which labels are copyable, bool."""
    samples = [validation[place] for place in range(VALIDATION_SAMPLES)]
    tokens, labels = (torch.stack([sample[key] for sample in samples]) for key in ("tokens", "labels"))
    copyable = torch.zeros_like(labels, dtype=torch.bool)
    for row, ids in enumerate(torch.cat([tokens, labels[:, -1:]], 1).tolist()):
        followed: dict[tuple[int, ...], int] = {}
        for place in range(COPIED_AFTER, len(ids)):
            before = tuple(ids[place - COPIED_AFTER : place])
            copyable[row, place - 1] = followed.get(before) == ids[place]
            followed[before] = ids[place]
    return tokens, labels, copyable


@torch.no_grad()
def validate(model: Any, tokens: torch.Tensor, labels: torch.Tensor, copyable: torch.Tensor) -> dict[str, float]:
    """Return the mean loss in nats a token: of all labels, of those that the context lets one copy, of the others."""
    model.eval()
    places = torch.arange(tokens.shape[1]).expand(16, -1).cuda()
    parts = zip(torch.split(tokens, 16), torch.split(labels, 16), strict=True)
    losses = torch.cat([model(part.cuda(), places, None, labels=goals.cuda()) for part, goals in parts]).float().cpu()
    model.train()
    means = {"loss": losses.mean(), "copyable": losses[copyable].mean(), "other": losses[~copyable].mean()}
    return {name: round(float(mean), 5) for name, mean in means.items()}


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value), encoding="utf-8")


def _tokens_first(job: Job) -> int:
    from megatron_nca.data.curriculum import read_blend

    stages = read_blend(([*job.first.split(), job.text], None)).stages if job.first else ()
    return sum(stage.tokens or 0 for stage in stages)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    train(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), target)
