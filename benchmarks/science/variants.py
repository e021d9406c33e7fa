"""What moves the quickstart's effect, in plain PyTorch: `python -m benchmarks.science.variants NAME SEED`.

Data, first weights and rates are the quickstart's; the training is `plain.py`'s, in float32, with one thing changed.
A line of JSON is appended to `results/variants.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.science.agreement import NCA, weights
from benchmarks.science.plain import Plain, Rates, build_adam, take_step
from benchmarks.science.table import RESULTS
from examples.quickstart.text import ByteLevelBPE, prepare, standard_library
from examples.quickstart.train import BATCH, Job, begin_process, build_datasets, held_out_text, read_batches

TEXT_TOKENS = 4_000_000


@dataclass(frozen=True)
class Variant:
    """What is done otherwise than in the quickstart.

    Attributes:
        nca_tokens: Tokens of NCA first; 0 for text alone.
        nca_lr: Peak rate of the layers in the NCA phase.
        output_scale: Factor of the output layer's first weights, at the start and at the switch.
        down_scale: Factor of the first weights of each MLP's second matrix.
        norms_decay: Whether norms decay with the weights.
        first_embeddings: Whether the text begins with the embeddings that the run began with, not with new ones.
    """

    nca_tokens: int = 1_000_000
    nca_lr: float = 2e-3
    output_scale: float = 1.0
    down_scale: float = 1.0
    norms_decay: bool = False
    first_embeddings: bool = False


SMALL: dict[str, Any] = {"output_scale": 0.02 / 0.0442, "down_scale": 0.577, "norms_decay": True}
"""The scales and the weight decay of the smaller trainer that first saw the effect; see docs/evidence.md."""
VARIANTS = {
    "text": Variant(nca_tokens=0),
    "nca": Variant(),
    "first-embeddings": Variant(first_embeddings=True),
    "small-text": Variant(nca_tokens=0, **SMALL),
    "small": Variant(**SMALL),
    "fast": Variant(nca_lr=4e-3),
    "twice": Variant(nca_tokens=2_000_000),
}


def main() -> int:
    """Train one run and append its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science.variants", description=__doc__)
    parser.add_argument("name", choices=VARIANTS, help="what is changed")
    parser.add_argument("seed", type=int, help="of the weights, of the text's order and of the automata")
    parser.add_argument("--text-tokens", type=int, default=TEXT_TOKENS, help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder that keeps the text (default: a temporary one)")
    parser.add_argument("--results", type=Path, default=RESULTS / "variants.jsonl", help="(default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = train(VARIANTS[args.name], args.seed, args.text_tokens, args.work or Path(folder))
    line = {"name": args.name, "seed": args.seed, **asdict(VARIANTS[args.name]), **found}
    with open(args.results, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{args.name}, seed {args.seed}: loss {found['validations'][-1]['loss']}")
    return 0


def train(variant: Variant, seed: int, text_tokens: int, work: Path) -> dict[str, Any]:
    """Train one run; return its validations, every eighth of the text, and the mean NCA loss of the phase's last 25 steps."""
    plain, training, validation, nca_steps, text_steps = begin(variant, seed, text_tokens, work)
    first = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    held_out = held_out_text(validation)
    job = Job("variant", "", "", seed=seed)
    batches = read_batches(training, 0, nca_steps + text_steps)
    losses = list(phase(plain, variant, batches, nca_steps, variant.nca_lr, job.nca_embedding_lr))
    if nca_steps:
        renew_embeddings(plain, first if variant.first_embeddings else None, seed, variant.output_scale)
    validations = []
    for step, _ in enumerate(phase(plain, variant, batches, text_steps, job.lr, job.embedding_lr), 1):
        if step % max(1, text_steps // 8) == 0 or step == text_steps:
            validations.append({"tokens": step * BATCH * training[0]["tokens"].numel(), **validate(plain, *held_out)})
    last = losses[-25:]
    return {"nca_loss": round(sum(last) / len(last), 3) if last else None, "validations": validations}


def begin(variant: Variant, seed: int, text_tokens: int, work: Path) -> tuple[Plain, Any, Any, int, int]:
    """Return the model with the quickstart's first weights, training and validation data, and the steps of both phases."""
    begin_process(seed)
    import megatron_nca
    from examples.quickstart.model import Shape, build_model
    from megatron_nca.training.options import Options
    from megatron_nca.training.run import CustomLoop

    shape = Shape()
    text, tokenizer_file = prepare(work, standard_library())
    first = f"nca:tokens={variant.nca_tokens},{NCA}" if variant.nca_tokens else ""
    run = megatron_nca.register()
    run.attach(CustomLoop(lambda line: print(line, file=sys.stderr, flush=True)))
    if first:
        run.validate(Options())
        run.restore(None, 0)
    tokenizer = ByteLevelBPE(tokenizer_file)
    nca_steps, text_steps = (-(-tokens // (BATCH * shape.sequence)) for tokens in (variant.nca_tokens, text_tokens))
    job = Job("variant", text, str(tokenizer_file), first=first, seed=seed)
    data = build_datasets(job, tokenizer, shape.sequence, (nca_steps + text_steps) * BATCH, work / "index-cache")
    plain = Plain(shape.layers, shape.hidden, shape.heads, shape.feed_forward, shape.sequence, tokenizer.vocab_size)
    plain.load_megatron(weights(build_model(shape, tokenizer.vocab_size, bf16=False)))
    with torch.no_grad():
        plain.output.mul_(variant.output_scale)
        for name, parameter in plain.named_parameters():
            if name.endswith(".down"):
                parameter.mul_(variant.down_scale)
    return plain, *data, nca_steps, text_steps


def phase(
    plain: Plain, variant: Variant, batches: Iterator[Any], steps: int, peak: float, embeddings: float
) -> Iterator[float]:
    """Train a phase with an optimizer and a schedule of its own, and yield the loss of each step."""
    from examples.quickstart.model import WARMUP_SHARE, WEIGHT_DECAY

    adam = build_adam(plain, WEIGHT_DECAY)
    adam.param_groups[-1]["weight_decay"] = WEIGHT_DECAY * variant.norms_decay
    rates = Rates(peak, embeddings, int(WARMUP_SHARE * steps * BATCH), steps * BATCH)
    for step in range(steps):
        yield take_step(plain, adam, next(batches), rates, step * BATCH)


@torch.no_grad()
def renew_embeddings(plain: Plain, first: dict[str, torch.Tensor] | None, seed: int, output_scale: float) -> None:
    """Give the model new input and output embeddings, or those that the run began with."""
    torch.manual_seed(seed + 100)
    for name, deviation in (("embedding", 1.0), ("output", output_scale * 0.5 / plain.embedding.shape[1] ** 0.5)):
        parameter = plain.get_parameter(name)
        if first is None:
            parameter.normal_(0, deviation)
        else:
            parameter.copy_(first[name])


@torch.no_grad()
def validate(plain: Plain, tokens: torch.Tensor, labels: torch.Tensor, copyable: torch.Tensor) -> dict[str, float]:
    """Return the mean loss in nats a token: of all labels, of those that the context lets one copy, of the others."""
    parts = zip(torch.split(tokens, 16), torch.split(labels, 16), strict=True)
    losses = torch.cat([plain(part, goals) for part, goals in parts])
    means = {"loss": losses.mean(), "copyable": losses[copyable].mean(), "other": losses[~copyable].mean()}
    return {name: round(float(mean), 5) for name, mean in means.items()}


if __name__ == "__main__":
    sys.exit(main())
