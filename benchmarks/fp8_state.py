"""Delayed scaling's state before and behind the switch, read from Transformer Engine's own modules.

make bench-fp8        # on a CPU with the emulated extension; the first table it prints, after a few seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks.fp8_reset import SEQUENCE, VOCABULARY, batches_of, switch

NCA_STEPS, HISTORY = 30, (16, "max")
TENSORS = {"scaling_fwd": ("input", "weight"), "scaling_bwd": ("gradient",)}
"""What the first entries of a linear layer's states are of."""


def states_of(model: Any) -> dict[str, tuple[float, float]]:
    """Return (largest magnitude in the history, scale) of each tensor that a linear layer casts, by its name."""
    found = {}
    for name, module in model.named_modules():
        for direction, tensors in TENSORS.items():
            state = getattr(module, "fp8_meta", {}).get(direction)
            if state is None or "attention" in name.rsplit(".", 1)[-1]:
                continue
            for place, tensor in enumerate(tensors):
                largest, scale = float(state.amax_history[:, place].max()), float(state.scale[place])
                found[f"{name.split('decoder.')[-1]}, {tensor}"] = largest, scale
    return found


def rows(seed: int) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Train, switch and train on; yield what each tensor's state was before, behind, and a step later."""
    from megatron_nca.rehearsal.fp8_training import Training, one_rank

    named = batches_of(seed)
    with one_rank(seed):
        training = Training(named("nca"), VOCABULARY, SEQUENCE, "delayed", history=HISTORY)
        training.train(NCA_STEPS)
        seen = [states_of(training.model)]
        switch(training, seed, "emptied")
        seen.append(states_of(training.model))
        training.batches, training.step = named("text"), 0
        training.train(1)
        seen.append(states_of(training.model))
        for name in seen[0]:
            yield name, [states[name] for states in seen]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from megatron_nca.rehearsal import install

    install()
    print("| tensor | largest in the history: before, behind, one step later | scale: before, behind, one step later |")
    print("|---|---|---|")
    for name, seen in rows(args.seed):
        histories, scales = zip(*seen, strict=True)
        print(
            f"| {name} | {', '.join(f'{value:.3g}' for value in histories)} | {', '.join(f'{value:.4g}' for value in scales)} |"
        )


if __name__ == "__main__":
    main()
