"""``megatron-nca plan``: the curriculum laid out over a run, before the run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron_nca.cli.common import FINDING, OK, UsageError, add_command, at_least, check_output, print_json, table
from megatron_nca.cli.launch.findings import problems, warnings
from megatron_nca.cli.launch.reading import Launch, add_launch_arguments, parts_of, read_launch
from megatron_nca.cli.launch.speed import tokens_a_core
from megatron_nca.cli.launch.tokenizer import add_tokenizer_arguments, read_vocabulary_of
from megatron_nca.cli.launch.validation import validated_options
from megatron_nca.data.curriculum import Blend, Curriculum, Plan, plan_training, read_blend
from megatron_nca.data.text_files import check_texts, is_here
from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.training.data_paths import SPLITS
from megatron_nca.training.extra_state import advices, installed_version
from megatron_nca.training.options import Options

EXAMPLES = """  megatron-nca plan --data-path nca:tokens=164M /data/owt_text_document --seq-length 1024 \\
      --global-batch-size 512 --train-iters 20000 --lr 5e-4 --lr-warmup-fraction 0.01 --nca-lr 1e-4 --output plan.png
  megatron-nca plan --tokens-per-second 2M -- torchrun --nproc-per-node 8 -m megatron_nca pretrain_gpt.py --data-path ...
  megatron-nca plan --checkpoint CHECKPOINTS

Everything after -- is a launch as you would type it; what the plan does not depend on is passed over. The data may be given
as Megatron-LM takes them: --data-path, --train-data-path and its like, --data-args-path, --per-split-data-args-path.
Exit code 1: the launch would be refused, or would not train as its entries say; 3 under --strict: a warning."""

POINTS = 200
"""Points at which the learning rate and the shares are computed, in each phase."""
MOST_SHARES = 200_000
"""Numbers of sources at those points, about, where there are very many."""
STRICT = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "plan", run, "check a launch: phases, learning rate, cores", EXAMPLES)
    parser.add_argument("--output", type=Path, metavar="PNG", help="draw shares and learning rate")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="what a run has read so far, and what it or a launch will add"
    )
    parser.add_argument("--strict", action="store_true", help="end with exit code 3 where there is a warning")
    parser.add_argument(
        "--tokens-per-second", type=at_least(1), metavar="N", help="of training; tells the generator cores needed"
    )
    add_launch_arguments(parser)
    add_tokenizer_arguments(parser)
    parser.add_argument("launch", nargs="*", metavar="-- LAUNCH", help="a whole command line")


def run(args: argparse.Namespace) -> int:
    """Lay out, check, print and draw; return 1 for a bad plan."""
    if args.checkpoint is not None:
        from megatron_nca.cli.launch import ledger

        return ledger.run(args, lambda error: _refused(error, args.json))
    if args.output is not None:
        check_output("--output", args.output, (".png",))
    launch = read_launch(args, args.launch)
    try:
        plan, described = _describe(launch, args)
    except UsageError:
        raise
    except NCAError as error:
        return _refused(error, args.json)
    if args.output:
        from megatron_nca.cli.pictures.plan import draw

        draw(plan, described, args.output)
    if args.json:
        print_json(described)
    else:
        for line in _lines(described):
            print(line)
    if args.output and not args.json:
        print(f"\nwrote {args.output}")
    return _exit_code(described, args.strict)


def _refused(error: NCAError, as_json: bool) -> int:
    """Tell what a launch would be refused for."""
    if as_json:
        print_json({"good": False, "problem": str(error)})
    print(f"megatron-nca: bad plan: {error}", file=sys.stderr)
    return FINDING


def _exit_code(described: dict[str, Any], strict: bool) -> int:
    if not described["good"]:
        return FINDING
    return STRICT if strict and described["warnings"] else OK


def _describe(launch: Launch, args: argparse.Namespace) -> tuple[Plan, dict[str, Any]]:
    from megatron_nca.data.band import check_band
    from megatron_nca.data.vocabulary import token_ids

    options = validated_options(launch)
    length = launch.args.seq_length
    curricula = [_curriculum(launch, split, blend) for split, blend in zip(SPLITS, launch.blends, strict=True)]
    train, *held_out = curricula
    if train is None:
        raise UsageError("--mock-data has no data path to plan; give --data-path")
    plan = plan_training(train, length, launch.samples, launch.boundaries, iterations=launch.args.train_iters)
    vocabulary, told_by = read_vocabulary_of(args, launch.args)
    for entry in {entry.text: entry for part in (train, *held_out) if part for entry in part.entries}.values():
        token_ids(entry, vocabulary)
        check_band(entry, engine="reference")
    not_here = _check_texts(launch, curricula)
    phases = list(_parts(plan))
    positions = _positions(plan, phases)
    if launch.args.lr is not None:
        positions = sorted({*positions, *_peaks(launch, options, plan, phases)})
    rates = _rates(launch, options, plan, positions)
    wrong = list(problems(plan))
    described: dict[str, Any] = {
        "good": not wrong,
        "samples": plan.samples,
        "tokens": plan.samples * length,
        "iterations": plan.batches.batches_until(plan.batches.round_up(plan.samples)),
        "sequence_length": length,
        "vocabulary": {"size": vocabulary.vocab_size, "from": told_by},
        "phases": phases,
        "sources": _sources(plan),
        "held_out": {split: _names(part) for split, part in zip(SPLITS[1:], held_out, strict=True)},
        "positions": positions,
        "shares": _shares(plan, positions),
        "learning_rate": rates and rates[0],
        "embedding_learning_rate": rates and rates[1] if launch.args.decoupled_lr is not None else None,
        "problems": wrong,
        "warnings": list(warnings(plan, told_by)),
        "notes": list(advices(launch.args, installed_version())),
        "not_here": not_here,
    }
    if args.tokens_per_second:
        described["generators"] = _generators(plan, args.tokens_per_second)
    return plan, described


def _curriculum(launch: Launch, split: str, blend: Blend | None) -> Curriculum | None:
    """Read a split's blend as the dataset builder will; validation and test hold the final blend only."""
    if blend is None:
        return None
    one_by_one = launch.args.multiple_validation_sets and launch.per_split and split == "valid"
    curriculum = read_blend(blend, mixed=not one_by_one).measured()
    return curriculum if split == "train" else curriculum.final()


def _check_texts(launch: Launch, curricula: Sequence[Curriculum | None]) -> str | None:
    """Look at the texts that are on this machine; return what the launch would be refused with here for one that is not.

    A plan may be made on a machine that has none of them.
    """
    parts = [(0.0, 1.0)] * len(SPLITS) if launch.per_split else parts_of(launch.args)
    splits = [(split, part, one.prefixes) for split, part, one in zip(SPLITS, parts, curricula, strict=True) if one and part]
    check_texts((split, part, filter(is_here, prefixes)) for split, part, prefixes in splits)
    try:
        check_texts((split, None, prefixes) for split, _, prefixes in splits)
    except CurriculumError as error:
        return str(error)
    return None


def _names(curriculum: Curriculum | None) -> list[str]:
    """Name what a split holds, NCA first."""
    return [] if curriculum is None else [*(entry.text for entry in curriculum.entries), *curriculum.text]


def _parts(plan: Plan) -> Iterator[dict[str, Any]]:
    """Describe each phase and what follows, in tokens, samples and iterations."""
    until, length = plan.batches.batches_until, plan.sequence_length
    for phase in plan.phases:
        end = min(phase.end, plan.samples)
        yield {
            "entry": phase.stage.text, "begin": phase.begin, "end": end, "samples": end - phase.begin,
            "tokens": (end - phase.begin) * length, "first_iteration": until(phase.begin) + 1, "last_iteration": until(end),
            "ramp_samples": phase.ramp, "floor": float(phase.stage.floor),
        }  # fmt: skip
    begin = plan.phases[-1].end if plan.phases else 0
    rest = [f"{float(weight):g} {entry.text}" for entry, weight in plan.curriculum.blended] + list(plan.curriculum.text)
    if rest and begin < plan.samples:
        yield {
            "entry": " + ".join(rest), "begin": begin, "end": plan.samples, "samples": plan.samples - begin,
            "tokens": (plan.samples - begin) * length, "first_iteration": until(begin) + 1,
            "last_iteration": until(plan.batches.round_up(plan.samples)), "ramp_samples": 0, "floor": 0.0,
        }  # fmt: skip


def _sources(plan: Plan) -> list[dict[str, Any]]:
    counts = plan.schedule.counts(plan.samples)
    return [
        {"source": plan.source_name(place), "samples": count, "tokens": count * plan.sequence_length,
         "share": count / plan.samples}
        for place, count in enumerate(counts)
    ]  # fmt: skip


def _positions(plan: Plan, phases: Sequence[dict[str, Any]]) -> list[int]:
    """Return the consumed samples before some steps of each phase, its first and its last among them."""
    found: set[int] = set()
    # Of very many phases and sources fewer, since each position tells the share of every source.
    points = max(min(POINTS, MOST_SHARES // (len(phases) * len(plan.sources))), 1)
    for part in phases:
        first, last = part["first_iteration"] - 1, max(part["last_iteration"] - 1, part["first_iteration"] - 1)
        steps = {first + (last - first) * point // points for point in range(points + 1)}
        found.update(plan.batches.position_after(step) for step in steps)
    return sorted(found)


def _peaks(launch: Launch, options: Options, plan: Plan, phases: Sequence[dict[str, Any]]) -> Iterator[int]:
    """Yield the consumed samples before the step of each phase from which the learning rate no longer rises."""

    def rate(step: int) -> float:
        found = _rates(launch, options, plan, [plan.batches.position_after(step)])
        assert found is not None
        return found[0][0]

    for part in phases:
        first, last = part["first_iteration"] - 1, max(part["last_iteration"], part["first_iteration"]) - 1
        while first < last:
            middle = (first + last) // 2
            first, last = (middle + 1, last) if rate(middle + 1) > rate(middle) else (first, middle)
        yield plan.batches.position_after(first)


def _shares(plan: Plan, positions: Sequence[int]) -> list[list[float]]:
    marks = [*positions, max(plan.batches.round_up(plan.samples), positions[-1] + 1)]
    counts = [plan.schedule.counts(mark) for mark in marks]
    return [
        [
            (last - first) / (marks[place + 1] - marks[place])
            for first, last in zip(counts[place], counts[place + 1], strict=True)
        ]
        for place in range(len(positions))
    ]


def _rates(launch: Launch, options: Options, plan: Plan, positions: Sequence[int]) -> tuple[list[float], list[float]] | None:
    if launch.args.lr is None:
        return None
    from megatron_nca.cli.launch.rates import learning_rates

    return learning_rates(launch, options, plan, positions)


def _generators(plan: Plan, tokens_per_second: int) -> list[dict[str, Any]]:
    made = [(entry.text, tokens_a_core(entry, plan.sequence_length)) for entry in plan.curriculum.entries]
    return [{"entry": text, "tokens_a_second_a_core": rate, "cores": tokens_per_second / rate} for text, rate in made]


def _lines(described: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{described['tokens']:,} tokens in {described['samples']:,} samples of {described['sequence_length']:,}, "
        f"{described['iterations']:,} iterations\n"
    )
    header = ["phase", "tokens", "samples", "iterations", "share of the run"]
    yield from table(header, [_row(part, described["samples"]) for part in described["phases"]])
    for part in described["phases"]:
        if part["ramp_samples"]:
            yield f"  {part['entry']} then falls to {part['floor']:.0%} over {part['ramp_samples']:,} samples"
    yield ""
    rows = [[one["source"], f"{one['tokens']:,}", f"{one['samples']:,}", f"{one['share']:.2%}"] for one in described["sources"]]
    yield from table(["source", "tokens", "samples", "share"], rows)
    yield ""
    for split, names in described["held_out"].items():
        yield f"{split}: {' + '.join(names) or 'nothing'}"
    vocabulary = described["vocabulary"]
    yield f"vocabulary: {vocabulary['size']:,} ids ({vocabulary['from']})"
    yield from _rate_lines(described)
    for one in described.get("generators", ()):
        rate, cores = one["tokens_a_second_a_core"], one["cores"]
        yield f"\n{one['entry']}: {cores:.1f} cores at full share ({rate:,.0f} tokens/s a core, measured here)"
    for note in described["notes"]:
        yield f"\nnote: {note}"
    if described["not_here"]:
        yield f"\nnote: a launch on this machine would be refused: {described['not_here']}"
    for warning in described["warnings"]:
        yield f"\nwarning: {warning}"
    for problem in described["problems"]:
        yield f"\nbad plan: {problem}"


def _row(part: dict[str, Any], samples: int) -> list[str]:
    iterations = f"{part['first_iteration']:,} - {part['last_iteration']:,}"
    return [part["entry"], f"{part['tokens']:,}", f"{part['samples']:,}", iterations, f"{part['samples'] / samples:.2%}"]


def _rate_lines(described: dict[str, Any]) -> Iterator[str]:
    for key, title in (("learning_rate", "learning rate"), ("embedding_learning_rate", "learning rate of the embeddings")):
        if described[key] is None:
            continue
        yield f"\n{title}"
        for part in described["phases"]:
            places = zip(described["positions"], described[key], strict=True)
            inside = [rate for position, rate in places if part["begin"] <= position < part["end"]]
            if inside:
                yield f"  {part['entry']}: {inside[0]:.3g} at its start, peak {max(inside):.3g}, {inside[-1]:.3g} at its end"
