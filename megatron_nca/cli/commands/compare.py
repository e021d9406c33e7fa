"""``megatron-nca compare``: a run's loss beside its baseline's, at equal text tokens."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_nca.cli.common import LONGEST, OK, UsageError, add_command, at_least, check_output, print_json, table
from megatron_nca.cli.pictures.looks import count
from megatron_nca.cli.runs.comparing import HEADER, Comparison, closing, compare, rows
from megatron_nca.cli.runs.curves import Run
from megatron_nca.cli.runs.reading import read_run

EXAMPLES = """  megatron-nca compare logs/nca.log logs/text.log
  megatron-nca compare --run nca-1 nca-2 nca-3 --baseline text-1 text-2 text-3 --html comparison.html
  megatron-nca compare results/nca results/text --of training --json

A run is a TensorBoard folder, a log of Megatron-LM's, a CSV file such as NeMo's metrics.csv, or the quickstart's result.json.
Several runs of a side are seeds: a difference within their spread is none, and with one run a side there is no spread."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "compare", run, "a run's loss beside its baseline's, over text tokens", EXAMPLES)
    parser.add_argument("places", nargs="*", type=Path, metavar="RUN BASELINE", help="a run, then its baselines")
    parser.add_argument("--run", nargs="+", type=Path, default=[], metavar="RUN", dest="runs", help="the seeds of the run")
    parser.add_argument("--baseline", nargs="+", type=Path, default=[], metavar="RUN", help="the seeds of its baseline")
    parser.add_argument(
        "--of", choices=("validation", "training"), help="which losses (default: validation, where there is one)"
    )
    parser.add_argument(
        "--seq-length", type=at_least(1, LONGEST), metavar="N", help="tokens of a sample, where a run does not tell"
    )
    parser.add_argument("--paired", action="store_true", help="run and baseline share their seeds, one by one in their order")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a self-contained page with the curves")


def run(args: argparse.Namespace) -> int:
    """Read, compare, print, and write the page."""
    if args.html is not None:
        check_output("--html", args.html, (".html", ".htm"))
    groups = _groups(args)
    runs, baselines = ([read_run(place, args.seq_length) for place in group] for group in groups)
    found = compare(runs, baselines, args.of, args.paired)
    if args.html is not None:
        from megatron_nca.cli.pictures.comparison import write_page

        write_page(found, args.html)
    if args.json:
        print_json(described(found) | {"written": [str(args.html)] if args.html else []})
        return OK
    for line in lines(found):
        print(line)
    if args.html is not None:
        print(f"\nwrote {args.html}")
    return OK


def _groups(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    runs, baselines = args.runs + args.places[:1], args.baseline + args.places[1:]
    if args.places and (args.runs or args.baseline):
        raise UsageError("name the runs one way: RUN BASELINE..., or --run and --baseline")
    if not runs or not baselines:
        raise UsageError("give a run and a baseline, as in megatron-nca compare RUN BASELINE")
    twice = [place for place in runs if place in baselines]
    if twice:
        raise UsageError(f"{twice[0]}: stands on both sides")
    return runs, baselines


def described(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values."""
    own, other = (losses.mean(axis=0) for losses in found.losses)
    return {
        "of": found.of,
        "text_tokens": [round(place) for place in found.text],
        "run_loss": own.tolist(),
        "baseline_loss": other.tolist(),
        "difference": found.difference.tolist(),
        "margin": None if found.margin is None else found.margin.tolist(),
        "verdict": found.verdict(),
        "saved": found.saved(),
        "runs": [_told(one) for one in found.runs],
        "baselines": [_told(one) for one in found.baselines],
    }


def _told(one: Run) -> dict[str, Any]:
    return {
        "name": one.name, "kind": one.kind, "nca_tokens": one.nca_tokens, "plan": one.plan, "facts": dict(one.facts),
        "training_losses": len(one.training), "validation_losses": len(one.validation),
    }  # fmt: skip


def lines(found: Comparison) -> Iterator[str]:
    """Yield the comparison for people."""
    for title, group in (("run", found.runs), ("baseline", found.baselines)):
        for one in group:
            yield f"{title}: {one.name} ({one.kind}; {count(one.nca_tokens)} NCA tokens)"
            if one.plan:
                yield f"  {one.plan}"
    yield f"\n{found.of} loss at equal text tokens\n"
    yield from table(HEADER, rows(found))
    yield ""
    yield from closing(found)
