"""``megatron-nca calibrate``: how complex is my text, and which rules are as complex?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.config import format_setting
from megatron_nca.automaton.source import NCASource
from megatron_nca.cli.common import DEFAULT_SEED, FINDING, OK, add_command, at_least, check_output, print_json, progress
from megatron_nca.data.calibration import (
    LEAST_ACCEPTANCE,
    Calibration,
    Match,
    acceptance,
    calibrate,
    probe_tokens,
    text_sequences,
)
from megatron_nca.data.entry import NCAEntry, parse_entry
from megatron_nca.data.sequence_statistics import SequenceStatistics, measure_sequences

EXAMPLES = """  megatron-nca calibrate /data/owt_text_document
  megatron-nca calibrate /data/code_document /data/books_document --output bands.png
  megatron-nca calibrate /data/owt_text_document --entry nca:colors=15,patch=2

The band can then stand in an entry, nca:gzip=LO-HI, or be measured by it: nca:domain=auto:/data/owt_text_document.
Exit code 1: hardly any rule of these settings is as complex as a text."""

BIN = 0.02
MOST_RULES, RULES_AT_ONCE = 1_000_000, 500
SEQUENCES = 48
"""Sequences of the text, and of NCA, whose frequency, entropy, change and autocorrelation are told."""
BAR = 30


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "calibrate", run, "the complexity of your own text, and the band that matches", EXAMPLES)
    parser.add_argument("prefixes", nargs="+", metavar="PREFIX", help="tokenised texts, as in --data-path")
    parser.add_argument("--entry", default="nca:", help="the process; its band is not used (default: nca:)")
    parser.add_argument("--rules", type=at_least(100, MOST_RULES), default=2000, help="random rules beside (default: 2000)")
    parser.add_argument("--output", type=Path, metavar="PNG", help="draw the histograms and statistics of both")


def run(args: argparse.Namespace) -> int:
    """Measure, print and draw; return 1 for a text that no rules match."""
    if args.output is not None:
        check_output("--output", args.output, (".png",))
    entry = parse_entry(args.entry)
    config = replace(entry.config, gzip=None)
    matches = _measure(args.prefixes, entry, args.rules, shown=not args.json)
    if args.output:
        from megatron_nca.cli.pictures.calibration import draw

        draw(matches, args.output)
    if args.json:
        print_json({"process": config.to_uri(), "window": probe_tokens(config), "texts": [_described(one) for one in matches]})
    else:
        for match in matches:
            print("\n".join(_lines(match)))
        if args.output:
            print(f"wrote {args.output}")
    return OK if all(match.good for match in matches) else FINDING


def _measure(prefixes: list[str], entry: NCAEntry, rules: int, shown: bool) -> list[Match]:
    config = replace(entry.config, gzip=None)
    # Texts take a moment each and may be refused; a bar is for the rules.
    texts = [calibrate(prefix, probe_tokens(config)) for prefix in prefixes]
    with progress("random rules", rules, "rule", shown=shown) as advance:
        source, found = NCASource(config, DEFAULT_SEED), []
        for first in range(0, rules, RULES_AT_ONCE):
            count = min(RULES_AT_ONCE, rules - first)
            found.append(source.complexities(count, first))
            advance(count)
    ratios = np.concatenate(found)
    with progress("statistics", len(texts), "text", shown=shown) as advance:
        matches = []
        for text in texts:
            matches.append(Match(text, ratios, *_statistics(text, entry, acceptance(ratios, text.band))))
            advance(1)
    return matches


def _statistics(text: Calibration, entry: NCAEntry, share: float) -> tuple[SequenceStatistics, SequenceStatistics]:
    """Measure sequences of a text, and as many tokens of trajectories in its band."""
    config = replace(entry.config, gzip=text.band if share >= LEAST_ACCEPTANCE else None)
    trajectories = NCASource(config, DEFAULT_SEED).tokens_batch(range(SEQUENCES), entry.trajectory)
    both = (text_sequences(text.prefix, entry.trajectory, SEQUENCES), trajectories)
    first, second = (measure_sequences(sequences, min(config.frame_length, sequences.shape[1] - 1)) for sequences in both)
    return first, second


def _described(match: Match) -> dict[str, Any]:
    text, edges = match.text, np.arange(0, 1 + BIN, BIN)
    quantiles = np.quantile(text.ratios, [0.1, 0.5, 0.9])
    return {
        "prefix": text.prefix, "tokens": text.tokens, "windows": len(text.sizes),
        "ratio": dict(zip(("tenth", "median", "ninetieth"), map(float, quantiles), strict=True)),
        "band": list(text.band), "acceptance": match.acceptance, "good": match.good,
        "entry": f"nca:gzip={format_setting(text.band)}",
        "statistics": {"text": match.text_statistics.as_dict(), "nca": match.nca_statistics.as_dict()},
        "histogram": {"bin": BIN, "text": _counts(text.ratios, edges), "rules": _counts(match.rules, edges)},
    }  # fmt: skip


def _counts(ratios: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> list[int]:
    return [int(count) for count in np.histogram(ratios, edges)[0]]


def _lines(match: Match) -> Iterator[str]:
    text = match.text
    tenth, median, ninetieth = np.quantile(text.ratios, [0.1, 0.5, 0.9])
    yield f"{text.prefix}: {text.tokens:,} tokens; {len(text.sizes):,} windows of {text.window} tokens"
    yield f"  gzip ratio  {median:.3f} in the median, {tenth:.3f} to {ninetieth:.3f} in the middle four fifths"
    yield f"  band        {format_setting(text.band)}, which {match.acceptance:.1%} of random rules fall into"
    yield f"  entry       nca:gzip={format_setting(text.band)}   or   nca:domain=auto:{text.prefix}\n"
    yield from _compared(match)
    yield from _histogram(match)
    if not match.good:
        lo, hi = np.quantile(match.rules, [0.05, 0.95])
        yield (
            f"\n  hardly any rule of these settings is as complex: most lie between {lo:.2f} and {hi:.2f}; try other colors= "
            "or patch= in --entry"
        )
    yield ""


def _compared(match: Match) -> Iterator[str]:
    both = (match.text_statistics, match.nca_statistics)
    of = "trajectories of the band" if match.good else "trajectories of random rules"
    yield f"  in a sequence          text    {of}"
    for name, values in (
        ("entropy, bits", [f"{one.entropy:.2f}" for one in both]),
        ("most frequent token", [f"{one.frequency[0]:.1%}" for one in both]),
        ("change over a frame", [f"{one.change:.1%}" for one in both]),
    ):
        yield f"  {name:<20} {values[0]:>6}    {values[1]:>6}"
    yield ""


def _histogram(match: Match) -> Iterator[str]:
    edges = np.arange(0, 1 + BIN, BIN)
    both = [np.array(_counts(ratios, edges)) / len(ratios) for ratios in (match.text.ratios, match.rules)]
    used = np.flatnonzero(both[0] + both[1])
    most = max(both[0].max(), both[1].max())
    yield f"  {'ratio':<6}    {'text':<{BAR + 7}} random rules"
    for place in range(used[0], used[-1] + 1):
        lo, hi = match.text.band
        mark = "|" if lo < edges[place] + BIN / 2 < hi else " "
        bars = [f"{'█' * round(BAR * share[place] / most):<{BAR}} {share[place]:>5.1%}" for share in both]
        yield f"  {edges[place]:<6.2f} {mark}  {bars[0]}  {bars[1]}"
