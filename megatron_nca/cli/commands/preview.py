"""``megatron-nca preview``: look at trajectories - as a picture, an animation, in the terminal or as a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from megatron_nca.cli.common import (
    OK,
    UsageError,
    add_command,
    add_source_arguments,
    at_least,
    check_output,
    make_source,
    print_json,
)
from megatron_nca.cli.pictures.drawing import Trajectories, draw_gif, draw_png
from megatron_nca.cli.pictures.terminal import lines, use_color
from megatron_nca.data.domain import read_entry
from megatron_nca.data.entry import NCAEntry

EXAMPLES = """  megatron-nca preview 'nca:domain=code'                        # preview.png
  megatron-nca preview 'nca:colors=4,gzip=0.1-0.4' --output four.gif  # an animation
  megatron-nca preview nca: --text --rules 2                     # in the terminal
  megatron-nca preview nca: --html gallery.html                  # a page: the process by its knobs"""

DRAWN = {".png": draw_png, ".gif": draw_gif}
RULES, MAX_RULES, MAX_FRAMES = 8, 64, 400
MAX_RULES_OF_PAGE = 2_000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "preview", run, "pictures of trajectories, one row a rule", EXAMPLES)
    parser.add_argument("entry", help="as in --data-path, such as nca:domain=code")
    parser.add_argument("--output", type=Path, metavar="FILE", help=".png or .gif (default: preview.png)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a self-contained page")
    parser.add_argument("--text", action="store_true", help="print to the terminal")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="of --text (default: auto)")
    parser.add_argument("--rules", type=at_least(1), help="how many (default: 8; in a page 500)")
    parser.add_argument("--frames", type=at_least(1), help="of each (default: 12; in an animation 40, in a page 32)")
    parser.add_argument("--first", type=at_least(0), default=0, help="number of the first trajectory (default: 0)")
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draw what is asked for."""
    from megatron_nca.data.band import check_band

    entry = read_entry(args.entry)
    output = _output(args)
    check_band(entry)
    written = []
    shown = _trajectories(entry, args, output)
    if output:
        DRAWN[output.suffix.lower()](shown, output)
        written.append(output)
    if args.html:
        from megatron_nca.cli.pictures.gallery import write_gallery

        write_gallery(entry, args, args.html)
        written.append(args.html)
    if args.json:
        print_json(_described(shown, written))
        return OK
    if args.text:
        for line in lines(shown, use_color(args.color)):
            print(line)
    for path in written:
        print(f"wrote {path}")
    return OK


def _output(args: argparse.Namespace) -> Path | None:
    output: Path | None = args.output
    if output is None and not args.text and not args.html:
        output = Path("preview.png")
    if output is not None:
        check_output("--output", output, tuple(DRAWN))
    if args.html is not None:
        check_output("--html", args.html, (".html", ".htm"))
    if args.rules and args.rules > MAX_RULES and (output is not None or args.text):
        raise UsageError(f"--rules {args.rules}: at most {MAX_RULES} fit a picture")
    if args.rules and args.rules > MAX_RULES_OF_PAGE:
        raise UsageError(f"--rules {args.rules}: at most {MAX_RULES_OF_PAGE:,} fit a page")
    if args.frames and args.frames > MAX_FRAMES:
        raise UsageError(f"--frames {args.frames}: at most {MAX_FRAMES}")
    return output


def _trajectories(entry: NCAEntry, args: argparse.Namespace, output: Path | None) -> Trajectories:
    frames = args.frames or (40 if output and output.suffix.lower() == ".gif" else 12)
    source, indices = make_source(entry, args), range(args.first, args.first + min(args.rules or RULES, MAX_RULES))
    every = "every step" if entry.config.dt == 1 else f"every {entry.config.dt} steps"
    seed = args.seed if entry.seed is None else entry.seed
    return Trajectories(
        title=entry.text,
        subtitle=f"frames from step {entry.config.burn_in} on, {every}; seed {seed}, {args.split}",
        config=entry.config,
        names=[f"rule {index if entry.rules is None else index % entry.rules:,}" for index in indices],
        ratios=[float(ratio) for ratio in source.scores(indices)],
        grids=source.grids_batch(indices, frames),
    )


def _described(shown: Trajectories, written: list[Path]) -> dict[str, Any]:
    return {
        "entry": shown.title,
        "process": shown.config.to_uri(),
        "trajectories": [{"name": name, "gzip_ratio": ratio} for name, ratio in zip(shown.names, shown.ratios, strict=True)],
        "written": [str(path) for path in written],
    }
