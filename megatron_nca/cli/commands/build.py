"""``megatron-nca build``: an entry's trajectories as files, for those who want files."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from megatron_nca.cli.common import (
    LONGEST,
    MOST_PROCESSES,
    OK,
    UsageError,
    add_command,
    add_source_arguments,
    at_least,
    check_folder,
    check_room,
    make_source,
    need,
    print_json,
    progress,
)
from megatron_nca.cli.launch.tokenizer import add_tokenizer_arguments, read_vocabulary
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.corpus import Corpus, write_corpus
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.domain import read_entry
from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.layout import SampleLayout
from megatron_nca.data.vocabulary import token_ids

EXAMPLES = """  megatron-nca build nca: --tokens 164M --output /data/nca --tokenizer /models/llama --processes 8
  megatron-nca build 'nca:domain=code' --tokens 50M --seq-length 4096 --output /data/nca_code

A build that was stopped goes on where it was when the same command is given again. Files hold tokens alone: a phase's length,
the loss mask of first frames and the transition to text are what nca: in --data-path brings."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "build", run, "write an offline corpus as Megatron's .bin and .idx", EXAMPLES)
    parser.add_argument("entry", help="as in --data-path, such as nca:domain=code")
    parser.add_argument("--output", type=Path, required=True, metavar="PREFIX", help="of the .bin and .idx")
    parser.add_argument("--tokens", type=at_least(1), help="how many, rounded up to samples (default: the entry's tokens=)")
    parser.add_argument("--seq-length", type=at_least(1, LONGEST), default=1024, help="of the run to come (default: 1024)")
    parser.add_argument("--processes", type=at_least(1, MOST_PROCESSES), default=1, help="that make trajectories (default: 1)")
    add_source_arguments(parser)
    add_tokenizer_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the files."""
    from megatron_nca.data.band import check_band

    need("megatron.core.datasets.indexed_dataset", extra="megatron")
    entry = read_entry(args.entry)
    corpus = _corpus(entry, args)
    check_band(entry)
    if not corpus.partial.exists():
        check_room("--output", corpus.bin, corpus.size)
    tokens, made = corpus.documents * corpus.layout.document_length, 0
    begin = time.perf_counter()
    with progress("build", tokens, "tok", shown=not args.json) as show:

        def advance(more: int) -> None:
            nonlocal made
            made += more
            show(more)

        write_corpus(corpus, args.processes, advance)
    seconds = time.perf_counter() - begin
    described = {
        "prefix": str(args.output), "tokens": made, "documents": corpus.documents, "seconds": seconds,
        "dtype": corpus.dtype.__name__, "bytes": corpus.bin.stat().st_size + corpus.idx.stat().st_size,
    }  # fmt: skip
    if args.json:
        print_json(described)
    else:
        print(f"wrote {corpus.bin} and .idx: {made:,} tokens in {corpus.documents:,} documents, {seconds:.1f} s")
    return OK


def _corpus(entry: NCAEntry, args: argparse.Namespace) -> Corpus:
    tokens = args.tokens or entry.tokens
    if tokens is None:
        raise UsageError("how many tokens? Give --tokens, as in --tokens 164M, or tokens= in the entry")
    if not args.output.name:
        raise UsageError(f"--output {str(args.output)!r}: must name what stands before .bin and .idx")
    check_folder("--output", args.output)
    length = args.seq_length
    # Refuses a sequence that does not hold two frames, as a launch does.
    plan_training(read_blend(([entry.text], None)).final(), length, 1, BatchBoundaries())
    if length > entry.trajectory and length % entry.trajectory:
        raise UsageError(
            f"--seq-length {length}: is no multiple of trajectory={entry.trajectory}, so samples would not begin with "
            "trajectories; change one of them"
        )
    vocabulary = read_vocabulary(args)
    layout = SampleLayout(length, False, entry.trajectory)
    samples = -(-tokens // length)
    return Corpus(
        prefix=args.output, source=make_source(entry, args), ids=token_ids(entry, vocabulary), eod=vocabulary.eod,
        layout=layout, documents=samples * layout.documents_per_sample, vocab_size=vocabulary.vocab_size,
    )  # fmt: skip
