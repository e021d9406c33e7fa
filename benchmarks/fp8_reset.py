"""What the treatment of FP8's delayed scaling at the switch does to the text behind it.

A small GPT in Transformer Engine's layers is trained on NCA, then on a text of bytes. From each checkpoint at the switch three
runs go on: histories emptied and scales kept, nothing done, scales set to one. New embeddings and fresh moments as ever. A run
in bf16 stands beside them.

    make bench-fp8        # on a CPU with the emulated extension, about 20 minutes; prints the tables of docs/transition.md
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

SEQUENCE, BATCH, VOCABULARY = 128, 4, 256
TEXT_STEPS = 50
PHASES = (10, 30, 100)
HISTORIES = ((16, "max"), (1024, "max"), (16, "most_recent"))
SEEDS = range(5)
SHOWN = (1, 2, 10, 50)


def batches_of(seed: int) -> Callable[[str], Callable[[int], Any]]:
    """Return the batches of NCA and of text, by name."""
    from megatron_nca import NCAConfig, NCASource

    source = NCASource(NCAConfig(grid=8, colors=3, gzip=None), seed=seed, split="train")
    generator = np.random.default_rng(seed)
    words = [bytes(generator.integers(97, 123, generator.integers(2, 9)).astype(np.uint8)) for _ in range(500)]
    text = np.frombuffer(b" ".join(words[rank % 500] for rank in generator.zipf(1.3, 200_000)), dtype=np.uint8)

    def nca(step: int) -> np.ndarray:
        return np.stack([source.tokens(step * BATCH + row, SEQUENCE + 1) for row in range(BATCH)])

    def bytes_of_text(step: int) -> np.ndarray:
        starts = np.random.default_rng((seed, step)).integers(0, len(text) - SEQUENCE - 1, BATCH)
        return np.stack([text[start : start + SEQUENCE + 1] for start in starts])

    def named(name: str) -> Callable[[int], Any]:
        read = {"nca": nca, "text": bytes_of_text}[name]

        def batches(step: int) -> Any:
            rows = torch.from_numpy(read(step).astype(np.int64))
            return rows[:, :-1], rows[:, 1:]

        return batches

    return named


def tensors_of(training: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor that training changes."""
    from megatron_nca.rehearsal.fp8_training import scaling_states
    from megatron_nca.training.optimizer import leaves

    yield from (parameter.data for parameter in training.model.parameters())
    for leaf in leaves(training.optimizer):
        for parameter, state in leaf.optimizer.state.items():
            yield parameter.data
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))
    for pair in scaling_states():
        yield from pair


class Snapshot:
    """A training as it was."""

    def __init__(self, training: Any) -> None:
        self._training = training
        self._kept = [(tensor, tensor.clone()) for tensor in tensors_of(training)]
        self._groups = [dict(group) for group in training.optimizer.param_groups]

    def restore(self) -> None:
        """Put everything back."""
        for tensor, value in self._kept:
            tensor.copy_(value)
        for group, kept in zip(self._training.optimizer.param_groups, self._groups, strict=True):
            group.update(kept)


def switch(training: Any, seed: int, treatment: str) -> None:
    """Carry a training over the switch, with one of the treatments of histories and scales."""
    from megatron_nca.rehearsal.fp8_training import scaling_states
    from megatron_nca.training import fp8, optimizer, reinit

    states = scaling_states()
    reinit.reinitialize([training.model], ("embeddings",), seed, optimizer.MasterWeights(training.optimizer).take)
    optimizer.reset_state(training.optimizer)
    if treatment in ("emptied", "ones"):
        fp8.clear_histories([training.model])
    if treatment == "ones":
        for _, scale in states:
            scale.fill_(1)


TREATMENTS = ("emptied", "nothing", "ones")


def text_run(training: Any, named: Any) -> dict[str, Any]:
    """Train on text; returns what was seen of it."""
    from megatron_nca.rehearsal.fp8_training import Casts

    training.batches, training.step = named("text"), 0
    first, rest = Casts(), Casts()
    with first:
        losses = training.train()
    norm = training.grad_norm
    with rest:
        losses += training.train(TEXT_STEPS - 1)
    return {
        "gradients flushed": first.flushed(gradients=True),
        "others flushed": first.flushed(gradients=False),
        "saturated": first.saturated(),
        "gradient norm": norm,
        "gradients flushed after": rest.flushed(gradients=True),
        "saturated after": rest.saturated(),
        "losses": losses,
    }


def runs(seed: int, history: tuple[int, str] | None) -> Iterator[dict[str, Any]]:
    """Yield the text behind each phase under each treatment; bf16 without a history."""
    from megatron_nca.rehearsal.fp8_training import Training, one_rank

    named = batches_of(seed)
    with one_rank(seed):
        recipe = None if history is None else "delayed"
        training = Training(named("nca"), VOCABULARY, SEQUENCE, recipe, history=history or (16, "max"))
        done = 0
        for phase in PHASES:
            training.batches, training.step = named("nca"), done
            training.train(phase - done)
            done = phase
            with torch.no_grad():
                kept = Snapshot(training)
            for treatment in TREATMENTS if history else ("bf16",):
                switch(training, seed, treatment)
                seen = text_run(training, named)
                yield {"seed": seed, "history": history, "phase": phase, "treatment": treatment, **seen}
                with torch.no_grad():
                    kept.restore()


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """Lay the runs out, a row for each phase, history and treatment: means over seeds."""
    yield (
        "| NCA steps | history | at the switch | gradients flushed | saturated | gradient norm | loss at "
        + ", ".join(map(str, SHOWN))
        + " | mean loss |"
    )
    yield "|" + "---|" * 8
    order = sorted(found, key=lambda one: (one["phase"], str(one["history"]), one["treatment"]))
    for (phase, history, treatment), group in itertools.groupby(
        order, key=lambda one: (one["phase"], one["history"] and tuple(one["history"]), one["treatment"])
    ):
        rows = list(group)
        means = {key: statistics.mean(row[key] for row in rows) for key in ("gradients flushed", "saturated", "gradient norm")}
        losses = [statistics.mean(row["losses"][step - 1] for row in rows) for step in SHOWN]
        overall = [statistics.mean(row["losses"]) for row in rows]
        shown = "-" if history is None else f"{history[1]} {history[0]}"
        flushed = "-" if history is None else f"{means['gradients flushed']:.1%}"
        saturated = "-" if history is None else f"{means['saturated']:.2%}"
        yield (
            f"| {phase} | {shown} | {treatment} | {flushed} | {saturated} | {means['gradient norm']:.2f} | "
            f"{', '.join(f'{loss:.3f}' for loss in losses)} | {statistics.mean(overall):.4f} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--output", type=Path, help="every run as JSON")
    args = parser.parse_args()
    from megatron_nca.rehearsal import install

    install()
    found = []
    for seed in range(args.seeds):
        for history in (None, *HISTORIES):
            found += list(runs(seed, history))
            if args.output:
                args.output.write_text(json.dumps(found), encoding="utf-8")
    for line in table(found):
        print(line)


if __name__ == "__main__":
    main()
