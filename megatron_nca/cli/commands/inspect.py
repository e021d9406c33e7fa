"""``megatron-nca inspect``: training samples as Megatron sees them, and what their process is like."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from megatron_nca.automaton.config import format_setting
from megatron_nca.automaton.source import NCASource
from megatron_nca.automaton.statistics import Statistics, measure, paper_statistics
from megatron_nca.cli.common import (
    LONGEST,
    OK,
    add_command,
    add_source_arguments,
    at_least,
    make_source,
    need,
    print_json,
    progress,
    table,
)
from megatron_nca.cli.launch.tokenizer import add_tokenizer_arguments, read_vocabulary
from megatron_nca.data.domain import read_entry
from megatron_nca.data.entry import NCAEntry

EXAMPLES = """  megatron-nca inspect nca:
  megatron-nca inspect 'nca:domain=code,loss=patches' --seq-length 4096 --samples 2 --tokens 80
  megatron-nca inspect nca: --tokenizer /models/llama/tokenizer.json --json"""

STATISTICS = {
    "gzip_ratio": "gzip ratio",
    "state_entropy": "entropy of the colours, bits",
    "cell_change": "cells that change a step",
    "distinct_tokens": "distinct patch tokens",
}


MOST_SAMPLES, MOST_RULES, RULES_AT_ONCE = 1_000, 100_000, 500


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "inspect", run, "samples as Megatron will see them, and statistics", EXAMPLES)
    parser.add_argument("entry", help="as in --data-path, such as nca:domain=code")
    parser.add_argument("--seq-length", type=at_least(1, LONGEST), default=1024, help="tokens of a sample (default: 1024)")
    parser.add_argument("--first", type=at_least(0), default=0, help="number of the first sample (default: 0)")
    parser.add_argument("--samples", type=at_least(1, MOST_SAMPLES), default=1, help="samples to show (default: 1)")
    parser.add_argument("--tokens", type=at_least(1), default=48, help="tokens of each to show (default: 48)")
    parser.add_argument("--rules", type=at_least(1, MOST_RULES), default=1000, help="rules to measure (default: 1000)")
    add_source_arguments(parser)
    add_tokenizer_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show samples and statistics."""
    from megatron_nca.data.band import check_band

    entry = read_entry(args.entry)
    check_band(entry)
    dataset = _dataset(entry, args)
    samples = [_describe(dataset, args.first + place) for place in range(args.samples)]
    source = make_source(entry, args)
    found = measure(entry.config, _probes(source, args.rules, shown=not args.json))
    acceptance, paper = source.acceptance(args.rules), paper_statistics(entry.config)
    if args.json:
        print_json({
            "entry": entry.text, "process": entry.config.to_uri(), "samples": samples, "rules": args.rules,
            "acceptance": acceptance, "statistics": found.as_dict(),
            "paper": paper and {"acceptance": paper[0], "statistics": paper[1].as_dict()},
        })  # fmt: skip
        return OK
    print(f"{entry.text}   = {entry.config.to_uri()}\n")
    for sample in samples:
        for line in _sample_lines(sample, entry, args.tokens):
            print(line)
    for line in _statistics_lines(found, acceptance, paper, args.rules, entry):
        print(line)
    return OK


def _probes(source: NCASource, rules: int, shown: bool) -> Any:
    """Return the probes of the first rules, with a bar where it takes a while."""
    parts = []
    with progress("rules", rules, "rule", shown=shown) as advance:
        for first in range(0, rules, RULES_AT_ONCE):
            count = min(RULES_AT_ONCE, rules - first)
            parts.append(source.probes(range(first, first + count)))
            advance(count)
    return np.concatenate(parts)


def _dataset(entry: NCAEntry, args: argparse.Namespace) -> Any:
    need("megatron.core.datasets.gpt_dataset", extra="megatron")
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig
    from megatron.core.datasets.utils import Split

    from megatron_nca.data.builder import make_dataset
    from megatron_nca.data.curriculum import plan_training, read_blend

    # Refuses a sequence that does not hold two frames, as a launch does.
    plan_training(read_blend(([entry.text], None)).final(), args.seq_length, 1, _every_sample())
    config = GPTDatasetConfig(
        random_seed=args.seed, sequence_length=args.seq_length, tokenizer=read_vocabulary(args), blend=([entry.text], None),
        split="1,1,1", reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
    )  # fmt: skip
    return make_dataset(entry, 0, args.first + args.samples, Split[args.split], config)


def _every_sample() -> Any:
    from megatron_nca.data.batches import BatchBoundaries

    return BatchBoundaries()


def _describe(dataset: Any, index: int) -> dict[str, Any]:
    sample, layout = dataset[index], dataset.layout
    documents = range(layout.documents_per_sample)
    bounds = [[place * layout.trajectory, min((place + 1) * layout.trajectory, layout.sequence_length)] for place in documents]
    return {
        "index": index,
        "tokens": sample["tokens"].tolist(),
        "labels": sample["labels"].tolist(),
        "loss_mask": sample["loss_mask"].int().tolist(),
        "documents": bounds if layout.ends_with_eod else [[0, layout.sequence_length]],
        "trajectories": [index * layout.documents_per_sample + place for place in documents],
    }


def _sample_lines(sample: dict[str, Any], entry: NCAEntry, shown: int) -> Iterator[str]:
    length, trained = len(sample["tokens"]), sum(sample["loss_mask"])
    yield f"sample {sample['index']:,}: {length:,} tokens, {trained:,} labels with loss ({trained / length:.1%})"
    for trajectory, (begin, end) in zip(sample["trajectories"], sample["documents"], strict=True):
        frames = (end - begin) / entry.config.frame_length
        yield f"  document of trajectory {trajectory:,}: tokens {begin:,} to {end - 1:,}, {frames:.1f} frames"
    columns = 12
    width = max(len(str(max(sample["tokens"] + sample["labels"]))), 3)
    for first in range(0, min(shown, length), columns):
        last = min(first + columns, shown, length)
        yield ""
        for key in ("tokens", "labels", "loss_mask"):
            row = " ".join(str(number).rjust(width) for number in sample[key][first:last])
            yield f"  {first if key == 'tokens' else '':>6}  {key.replace('_', ' '):<9} {row}"
    yield ""


def _statistics_lines(
    found: Statistics, acceptance: float, paper: tuple[float, Statistics] | None, rules: int, entry: NCAEntry
) -> Iterator[str]:
    known = paper[1].as_dict() if paper else {}
    rows = [
        [title, f"{found.as_dict()[name]:.4g}", f"{known[name]:.4g}" if known else "-"] for name, title in STATISTICS.items()
    ]
    accepted = f"rules in the band {format_setting(entry.config.gzip)}"
    rows.append([accepted, f"{acceptance:.1%}", f"{paper[0]:.1%}" if paper else "-"])
    yield from table([f"{rules:,} rules, ten frames each", "this entry", "the paper's code"], rows)
    if not paper:
        yield "(the paper has no figures for these settings)"
