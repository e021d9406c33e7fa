"""Transformer Engine's modules on fixed numbers: what a GPU computes beside what the emulation computed.

python -m benchmarks.hopper.conformity record FILE     # on a CPU, with the emulation
python -m benchmarks.hopper.conformity compare FILE    # on a GPU; prints JSON: the largest relative difference of each kind
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

STEPS = 8
SWITCH = 5
ROWS, WIDTH, OUTPUT = 256, 128, 256
SHOWN = 16
"""Rows kept of every output."""


def draw(generator: torch.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Draw normal bf16 numbers on the CPU, the same everywhere."""
    return (torch.randn(*shape, generator=generator) * scale).bfloat16()


def modules() -> dict[str, Callable[[], Any]]:
    """Return what is compared, by name."""
    import transformer_engine.pytorch as te

    common = {"params_dtype": torch.bfloat16}
    return {
        "Linear": lambda: te.Linear(WIDTH, OUTPUT, **common),
        "LayerNormLinear": lambda: te.LayerNormLinear(WIDTH, OUTPUT, **common),
        "RMSNormLinear": lambda: te.LayerNormLinear(WIDTH, OUTPUT, normalization="RMSNorm", bias=False, **common),
        "LayerNormMLP": lambda: te.LayerNormMLP(WIDTH, OUTPUT, **common),
        "SwigluMLP": lambda: te.LayerNormMLP(WIDTH, OUTPUT, activation="swiglu", normalization="RMSNorm", bias=False, **common),
    }


def recipes() -> dict[str, Any]:
    """Return the recipes, by name."""
    from transformer_engine.common.recipe import DelayedScaling, Float8BlockScaling, Float8CurrentScaling, Format

    return {
        "bf16": None,
        "delayed, max": DelayedScaling(fp8_format=Format.HYBRID, amax_history_len=4, amax_compute_algo="max"),
        "delayed, most recent": DelayedScaling(fp8_format=Format.HYBRID, amax_history_len=1, amax_compute_algo="most_recent"),
        "current": Float8CurrentScaling(),
        "blocks": Float8BlockScaling(),
    }


def numbers() -> dict[tuple[str, str, int, str], torch.Tensor]:
    """Train every module under every recipe for some steps, over a switch; return what came out, by name."""
    from megatron_nca.rehearsal.fp8_training import forget_transformer_engine

    found: dict[tuple[str, str, int, str], torch.Tensor] = {}
    for name, build in modules().items():
        for recipe_name, recipe in recipes().items():
            forget_transformer_engine()
            for step, kind, value in _train(build(), recipe, is_mlp="MLP" in name):
                found[name, recipe_name, step, kind] = value.detach().float().cpu().clone()
    return found


def _train(module: Any, recipe: Any, is_mlp: bool) -> Iterator[tuple[int, str, torch.Tensor]]:
    import transformer_engine.pytorch as te

    from megatron_nca.training import fp8

    generator = torch.Generator().manual_seed(0)
    module = module.cuda()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            ones = 1.0 if "norm_weight" in name else 0.0
            parameter.copy_(draw(generator, *parameter.shape, scale=0.05).to(parameter.device) + ones)
    for step in range(STEPS):
        if step == SWITCH:
            yield step, "histories cleared", torch.tensor(float(fp8.clear_histories([module]).histories))
        inputs = draw(generator, ROWS, WIDTH, scale=1 + step).cuda().requires_grad_()
        gradient = draw(generator, ROWS, WIDTH if is_mlp else OUTPUT, scale=1e-3).cuda()
        with te.fp8_autocast(enabled=recipe is not None, fp8_recipe=recipe):
            output = module(inputs)
        output.backward(gradient)
        assert inputs.grad is not None
        yield step, "output", output[:SHOWN]
        yield step, "input's gradient", inputs.grad[:SHOWN]
        for name, parameter in module.named_parameters():
            yield step, f"parameter's gradient {name}", parameter.grad[:SHOWN]
            parameter.grad = None
        for direction in fp8.DIRECTIONS:
            state = module.fp8_meta.get(direction)
            if hasattr(state, "amax_history"):
                yield step, f"history {direction}", state.amax_history
                yield step, f"scale {direction}", state.scale


def compare(found: dict[Any, torch.Tensor], recorded: dict[Any, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Return the largest relative difference of each recipe and kind, and where it is."""
    worst: dict[str, dict[str, Any]] = {}
    for (module, recipe, step, kind), value in found.items():
        other = recorded[module, recipe, step, kind]
        difference = float((value - other).norm() / other.norm().clamp(min=1e-30))
        key = f"{recipe}: {kind.split(' ')[0]}"
        if difference >= worst.get(key, {"difference": -1.0})["difference"]:
            worst[key] = {"difference": difference, "module": module, "step": step}
    return worst


def main() -> None:
    """Record or compare."""
    what, path = sys.argv[1:]
    if not torch.cuda.is_available():
        from megatron_nca.rehearsal import install

        install()
    found = numbers()
    if what == "record":
        torch.save(found, path)
        print(json.dumps({"recorded": len(found)}))
    else:
        print(json.dumps(compare(found, torch.load(path, weights_only=True)), indent=1))


if __name__ == "__main__":
    main()
