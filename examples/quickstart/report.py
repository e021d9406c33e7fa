"""The report: a table on the screen, pictures, and the numbers as JSON and CSV."""

from __future__ import annotations

import math
from typing import Any

from examples.quickstart.files import write_json, write_text
from examples.quickstart.folder import BASELINE, WITH_NCA
from examples.quickstart.results import Comparison, read_comparison
from examples.quickstart.settings import Launch, Settings

EQUAL = 0.002
"""Relative difference in loss below which the runs are called equal."""


def report(settings: Settings, launch: Launch) -> None:
    """Print and write what came out.

    Args:
        settings: Of the runs.
        launch: Gives the output folder.
    """
    from examples.quickstart.plots import plot_curves, plot_trajectories

    comparison = read_comparison(launch.out)
    write_json(launch.out / "results.json", summarise(comparison, settings))
    write_text(launch.out / "validation.csv", as_csv(comparison))
    plot_curves(comparison, launch.out / "loss.png")
    plot_trajectories(settings, launch.out / "trajectories.png")
    print(f"\n{describe(comparison, settings)}\n\n{as_table(comparison)}\n\n{conclude(comparison)}\n")
    print(f"{launch.out}/: loss.png, trajectories.png, validation.csv, results.json")


def describe(comparison: Comparison, settings: Settings) -> str:
    """Say in two lines what was trained on what."""
    environment = comparison.with_nca.environment
    return (
        f"GPT of {environment['parameters'] / 1e6:.1f}M parameters ({settings.layers} layers of {settings.hidden}), "
        f"{settings.step_tokens:,} tokens a step, {environment['ranks']} x {environment['device']}\n"
        f"text only: the standard library's sources, learning rate {settings.lr:g}\n"
        f"NCA first: {settings.entry} at learning rate {settings.nca_lr:g}, then the same"
    )


def as_table(comparison: Comparison) -> str:
    """Lay both runs out side by side, a line for each validation."""
    head = (
        "                   validation loss, nats/token              perplexity\n"
        " text tokens   text only   NCA first   change     text only   NCA first   change"
    )
    lines = [
        f"{row.text_tokens:>12,}   {row.baseline:>9.4f}   {row.with_nca:>9.4f}  {row.loss_change:>+7.1%}"
        f"     {math.exp(row.baseline):>9.1f}   {math.exp(row.with_nca):>9.1f}  {row.perplexity_change:>+7.1%}"
        for row in comparison.rows
    ]
    return "\n".join([head, *lines])


def conclude(comparison: Comparison) -> str:
    """Say what was found, whichever way it went."""
    return "\n".join([_verdict(comparison), _saving(comparison), "One seed: see examples/quickstart/README.md."])


def _verdict(comparison: Comparison) -> str:
    last = comparison.rows[-1]
    ahead = sum(row.loss_change < -EQUAL for row in comparison.rows)
    count = f"NCA first was ahead in {ahead} of {len(comparison.rows)} validations"
    if abs(last.loss_change) <= EQUAL:
        return f"{count}; at the end the two are equal."
    word = "lower" if last.loss_change < 0 else "HIGHER: at this size, NCA did not help"
    return f"{count}; at the end its loss is {abs(last.loss_change):.1%} {word}."


def _saving(comparison: Comparison) -> str:
    tokens, spent = comparison.text_tokens_to_match, comparison.nca_tokens
    final = f"the baseline's final loss of {comparison.baseline.final_loss:.4f}"
    if tokens is None:
        return f"It did not reach {final}."
    return (
        f"It reached {final} after {tokens:,.0f} text tokens instead of {comparison.text_tokens:,}: "
        f"{comparison.text_tokens / tokens:.2f}x less text,\nfor {spent:,} NCA tokens before it "
        f"({tokens + spent:,.0f} tokens in all)."
    )


def as_csv(comparison: Comparison) -> str:
    """Return both validation curves as CSV."""
    lines = ["text_tokens,baseline_loss,with_nca_loss,loss_change,perplexity_change"]
    lines += [
        f"{row.text_tokens},{row.baseline!r},{row.with_nca!r},{row.loss_change!r},{row.perplexity_change!r}"
        for row in comparison.rows
    ]
    return "\n".join(lines) + "\n"


def summarise(comparison: Comparison, settings: Settings) -> dict[str, Any]:
    """Return everything that the report says, as JSON takes it."""
    curves = (comparison.baseline, comparison.with_nca)
    return {
        "settings": settings.to_dict(),
        "environment": {curve.name: curve.environment for curve in curves},
        "nca_tokens": comparison.nca_tokens,
        "text_tokens": comparison.text_tokens,
        "final_loss": {curve.name: curve.final_loss for curve in curves},
        "tokens_per_second": {curve.name: curve.tokens_per_second for curve in curves},
        "text_tokens_to_match_baseline": comparison.text_tokens_to_match,
        "validations": [
            {"text_tokens": row.text_tokens, BASELINE: row.baseline, WITH_NCA: row.with_nca, "loss_change": row.loss_change}
            for row in comparison.rows
        ],
    }
