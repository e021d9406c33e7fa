"""Refusing a Megatron-LM launch by its words, before Megatron is imported, which takes a rank seconds.

The checks are those of ``validating``, which looks again at the arguments as Megatron has them: what is refused here would be
refused there, in the same words. What cannot be told from the words yet is left to it.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from megatron_nca.errors import NCAError
from megatron_nca.refusing import alike_on_every_rank
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training.data_paths import FILE_FLAGS, FLAGS, DataPathsError, read_data_paths
from megatron_nca.training.options import Options, add_arguments, options_of, take_arguments
from megatron_nca.training.run_info import RunInfo
from megatron_nca.training.validating import validate

SWITCHES = (
    "mock-data", "multiple-validation-sets", "full-validation", "sft", "hybrid-context-parallel", "optimizer-cpu-offload",
    "dataloader-inter-document-masking", "use-megatron-fsdp", "moe-use-legacy-grouped-gemm", "moe-single-grouped-weight",
)  # fmt: skip
WORDS = ("yaml-cfg", "dataloader-type", "phase-transition-iterations", *FILE_FLAGS)
NUMBERS = (
    "eval-iters", "num-experts", "megatron-fsdp-version", "tensor-model-parallel-size", "expert-tensor-parallel-size",
    "tensor-parallel-num-weight-shards", "expert-tensor-parallel-num-weight-shards",
)  # fmt: skip
RATES = ("decoupled-lr",)
"""Flags that a check looks at, as Megatron names them."""


class _LeftToMegatronError(Exception):
    """The words are not understood here; Megatron has its own error for them, or another way to read them."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _LeftToMegatronError(message)


def is_megatron_lm(script: Path) -> bool:
    """Tell whether a script is one that trains through Megatron-LM's own loop."""
    try:
        return "megatron.training" in script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def refuse_early(words: Sequence[str]) -> None:
    """Refuse a launch whose words alone decide that it cannot be served.

    Args:
        words: Arguments of a Megatron-LM script.

    Raises:
        NCAError: An error of ``validate``; marked as one of every rank.
    """
    try:
        args = _read(words)
        blends = read_data_paths(args).blends
    except (_LeftToMegatronError, DataPathsError):
        return
    given = take_arguments(args)
    info = RunInfo(
        loader=args.dataloader_type,
        blends=blends,
        validation_sets_apart=args.multiple_validation_sets,
        eval_batches=None if args.full_validation else args.eval_iters,
        args=args,
    )
    with alike_on_every_rank():
        validate(Options.read(given, MEGATRON_LM), info, MEGATRON_LM)


def _read(words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag in SWITCHES:
        parser.add_argument(f"--{flag}", action="store_true")
    for kind, flags in ((str, WORDS), (int, NUMBERS), (float, RATES)):
        for flag in flags:
            parser.add_argument(f"--{flag}", type=kind)
    for flag in FLAGS:
        parser.add_argument(f"--{flag}", nargs="*")
    args, others = add_arguments(parser).parse_known_args(list(words))
    with alike_on_every_rank():
        refuse_unknown(others)
    if args.yaml_cfg is not None:
        raise _LeftToMegatronError("its arguments are in a file")
    if args.megatron_fsdp_version is None:
        args.megatron_fsdp_version = 1
    derive_weight_shards(args)
    return args


def refuse_unknown(words: Sequence[str]) -> None:
    """Refuse a flag of ours that does not exist; Megatron's own are passed over.

    Args:
        words: Those that no parser knew.

    Raises:
        NCAError: It names the flag that may have been meant.
    """
    known = [MEGATRON_LM.option(option.name) for option in options_of(MEGATRON_LM)]
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith(MEGATRON_LM.prefix):
            near = difflib.get_close_matches(flag, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise NCAError(f"{flag}: there is no such flag; {meant}")


def derive_weight_shards(args: argparse.Namespace) -> None:
    """Set how far weights are sharded over a further group: Megatron counts shards together with tensor parallelism's.

    Args:
        args: Megatron-LM's, as far as they are known; changed.
    """
    tensor = max(getattr(args, "tensor_model_parallel_size", None) or 1, 1)
    expert = max(getattr(args, "expert_tensor_parallel_size", None) or tensor, 1)
    args.gtp_weight_remat_size = (getattr(args, "tensor_parallel_num_weight_shards", None) or 1) // tensor
    args.expert_gtp_weight_remat_size = (getattr(args, "expert_tensor_parallel_num_weight_shards", None) or 1) // expert
