"""Megatron-Core with the plugin against plain PyTorch, step by step: `python -m benchmarks.science.agreement`.

Both begin with the same weights and read the same batches; at the switch both get the same new embeddings. Everything else, the
forward and backward pass, clipping, Adam, the rates and what is reset at the switch, each does by itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from examples.quickstart.text import ByteLevelBPE, prepare, standard_library
from examples.quickstart.train import BATCH, Job, begin_process, build_datasets, read_batches, train_step

NCA = "grid=4,colors=4,burn_in=200,gzip=0.3-0.8"
TOLERANCE = 1e-3
"""Nats a token, of a step's mean loss."""


class Step(NamedTuple):
    """Losses of one step.

    Attributes:
        phase: `NCA` or `text`.
        megatron: Mean loss of a label on Megatron-Core, in nats.
        plain: The same in plain PyTorch.
    """

    phase: str
    megatron: float
    plain: float


def main() -> int:
    """Print the table; return 1 if a step differs by more than the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science.agreement", description=__doc__)
    parser.add_argument("--work", type=Path, help="folder that keeps the text (default: a temporary one)")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(100, 200), metavar="N", help="of NCA, of text (default: 100 200)"
    )
    parser.add_argument("--bf16", action="store_true", help="both in bf16, each in its own way")
    args = parser.parse_args()
    nca, text = args.steps
    with tempfile.TemporaryDirectory() as folder:
        steps = list(compare(args.work or Path(folder), nca, text, bf16=args.bf16))
    print("| phase | steps | Megatron-Core, first and last loss | plain PyTorch | largest difference | of a tenth's mean |")
    print("|---|---:|---:|---:|---:|---:|")
    worst = 0.0
    for phase in ("NCA", "text"):
        of_phase = [step for step in steps if step.phase == phase]
        differences = [step.megatron - step.plain for step in of_phase]
        tenth = max(1, len(differences) // 10)
        means = [abs(sum(differences[at : at + tenth])) / tenth for at in range(0, len(differences), tenth)]
        worst = max(worst, *map(abs, differences))
        first, last = of_phase[0], of_phase[-1]
        print(
            f"| {phase} | {len(of_phase)} | {first.megatron:.5f}, {last.megatron:.5f} | {first.plain:.5f}, {last.plain:.5f} "
            f"| {max(map(abs, differences)):.1e} | {max(means):.1e} |"
        )
    return int(worst > TOLERANCE)


def compare(
    work: Path, nca_steps: int, text_steps: int, bf16: bool = False, documents: int | None = None, embeddings_decay: bool = True
) -> Iterator[Step]:
    """Train both side by side, and yield the losses of each step.

    Args:
        work: Folder of the text.
        nca_steps: Steps of NCA.
        text_steps: Steps of text.
        bf16: Whether both compute in bf16: Megatron-Core with weights and hidden states in bf16, the other products alone.
        documents: Documents of the text to take; None for all.
        embeddings_decay: Whether plain PyTorch's weight decay takes in the embeddings, as Megatron-Core's does.
    """
    begin_process(1)
    import megatron_nca
    from benchmarks.science.plain import Plain, Rates, build_adam, parameters_of, take_step
    from examples.quickstart.model import (
        FINAL_SHARE,
        WARMUP_SHARE,
        WEIGHT_DECAY,
        Shape,
        build_model,
        build_optimizer,
        build_scheduler,
    )
    from megatron_nca.training.options import Options
    from megatron_nca.training.run import CustomLoop

    shape = Shape()
    text, tokenizer_file = prepare(work, standard_library()[:documents])
    tokens = nca_steps * BATCH * shape.sequence
    job = Job("agreement", text, str(tokenizer_file), first=f"nca:tokens={tokens},{NCA}")
    run = megatron_nca.register()
    run.attach(CustomLoop(lambda line: print(line, file=sys.stderr, flush=True)))
    run.validate(
        Options(
            lr=job.nca_lr, min_lr=job.nca_lr * FINAL_SHARE, decoupled_lr=job.nca_embedding_lr,
            decoupled_min_lr=job.nca_embedding_lr * FINAL_SHARE,
        )
    )  # fmt: skip
    tokenizer, steps = ByteLevelBPE(tokenizer_file), nca_steps + text_steps
    training, _ = build_datasets(job, tokenizer, shape.sequence, steps * BATCH, work / "index-cache")
    model = build_model(shape, tokenizer.vocab_size, bf16)
    optimizer = build_optimizer(model, job.lr, job.embedding_lr)
    scheduler = build_scheduler(optimizer, job.lr, steps * BATCH, text_steps * BATCH)
    run.restore(None, 0)

    plain = Plain(shape.layers, shape.hidden, shape.heads, shape.feed_forward, shape.sequence, tokenizer.vocab_size)
    plain.load_megatron(weights(model))
    adam = build_adam(plain, WEIGHT_DECAY, embeddings_decay)
    phases = {
        "NCA": Rates(job.nca_lr, job.nca_embedding_lr, int(WARMUP_SHARE * nca_steps * BATCH), nca_steps * BATCH),
        "text": Rates(job.lr, job.embedding_lr, int(WARMUP_SHARE * text_steps * BATCH), text_steps * BATCH),
    }
    mine, theirs = (read_batches(training, 0, steps) for _ in range(2))
    for step in range(steps):
        run.before_step(step * BATCH, [model], optimizer, scheduler)
        phase, read = ("NCA", step) if step < nca_steps else ("text", step - nca_steps)
        if step == nca_steps:
            new = weights(model)
            for name, parameter in parameters_of(plain):
                if "layers" not in name and "norm" not in name:
                    parameter.data.copy_(new[name])
            adam = build_adam(plain, WEIGHT_DECAY, embeddings_decay)
        loss = take_step(plain, adam, next(theirs), phases[phase], read * BATCH, bf16)
        yield Step(phase, train_step(model, optimizer, scheduler, mine, shape.sequence), loss)


def weights(model: Any) -> dict[str, Any]:
    """Return a Megatron-Core model's weights by the names of its GPTModel."""
    return {name.rpartition("module.")[2]: parameter.data.float() for name, parameter in model.named_parameters()}


if __name__ == "__main__":
    sys.exit(main())
