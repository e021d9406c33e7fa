"""Refusing a Megatron-LM launch by its words, before Megatron is imported, which takes a rank seconds.

The checks are those of ``validating``, which looks again at the arguments as Megatron has them: what is refused here would be
refused there, in the same words. What cannot be told from the words yet is left to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from megatron_nca.data.curriculum import Blend
from megatron_nca.data.phase_word import blend_of
from megatron_nca.refusing import alike_on_every_rank
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training.facts import RunFacts
from megatron_nca.training.options import Options, add_arguments, take_arguments
from megatron_nca.training.validating import validate

SPLITS = ("train", "valid", "test")

SWITCHES = (
    "mock-data", "multiple-validation-sets", "full-validation", "sft", "hybrid-context-parallel", "optimizer-cpu-offload",
    "dataloader-inter-document-masking", "use-megatron-fsdp", "moe-use-legacy-grouped-gemm", "moe-single-grouped-weight",
)  # fmt: skip
WORDS = ("yaml-cfg", "dataloader-type", "phase-transition-iterations", "data-args-path", "per-split-data-args-path")
NUMBERS = (
    "eval-iters", "num-experts", "megatron-fsdp-version", "tensor-model-parallel-size", "expert-tensor-parallel-size",
    "tensor-parallel-num-weight-shards", "expert-tensor-parallel-num-weight-shards",
)  # fmt: skip
RATES = ("decoupled-lr",)
PATHS = ("data-path", *(f"{split}-data-path" for split in SPLITS))
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
        NCAError: As ``validate`` raises it; marked as one of every rank.
    """
    try:
        args = _read(words)
        blends = _blends(args)
    except _LeftToMegatronError:
        return
    given = take_arguments(args)
    facts = RunFacts(
        loader=args.dataloader_type,
        blends=blends,
        validation_sets_apart=args.multiple_validation_sets,
        eval_batches=None if args.full_validation else args.eval_iters,
        args=args,
    )
    with alike_on_every_rank():
        validate(Options.read(given, MEGATRON_LM), facts, MEGATRON_LM)


def _read(words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag in SWITCHES:
        parser.add_argument(f"--{flag}", action="store_true")
    for kind, flags in ((str, WORDS), (int, NUMBERS), (float, RATES)):
        for flag in flags:
            parser.add_argument(f"--{flag}", type=kind)
    for flag in PATHS:
        parser.add_argument(f"--{flag}", nargs="*")
    args, _ = add_arguments(parser).parse_known_args(list(words))
    if args.yaml_cfg is not None:
        raise _LeftToMegatronError("its arguments are in a file")
    if args.megatron_fsdp_version is None:
        args.megatron_fsdp_version = 1
    derive_weight_shards(args)
    return args


def derive_weight_shards(args: argparse.Namespace) -> None:
    """Set how far weights are sharded over a further group: Megatron counts shards together with tensor parallelism's.

    Args:
        args: Megatron-LM's, as far as they are known; changed.
    """
    tensor = max(getattr(args, "tensor_model_parallel_size", None) or 1, 1)
    expert = max(getattr(args, "expert_tensor_parallel_size", None) or tensor, 1)
    args.gtp_weight_remat_size = (getattr(args, "tensor_parallel_num_weight_shards", None) or 1) // tensor
    args.expert_gtp_weight_remat_size = (getattr(args, "expert_tensor_parallel_num_weight_shards", None) or 1) // expert


def _blends(args: argparse.Namespace) -> tuple[Blend | None, ...]:
    """Return train, valid and test data as Megatron splits them."""
    if args.mock_data:
        return (None, None, None)
    if args.data_path is not None or args.data_args_path is not None:
        path = args.data_path if args.data_args_path is None else _file(args.data_args_path).split()
        return (_blend(path),) * len(SPLITS)
    if args.per_split_data_args_path is not None:
        return _of_file(args.per_split_data_args_path)
    paths = [getattr(args, f"{split}_data_path") for split in SPLITS]
    if not any(paths):
        raise _LeftToMegatronError("the data may come from the script")
    return tuple(map(_blend, paths))


def _of_file(name: str) -> tuple[Blend | None, ...]:
    try:
        paths = json.loads(_file(name))
        parts = [paths[split] for split in SPLITS]
        return tuple(_blend(part.split() if isinstance(part, str) else part) for part in parts)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise _LeftToMegatronError(str(error)) from None


def _file(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _LeftToMegatronError(str(error)) from None


def _blend(path: Any) -> Blend | None:
    return None if path is None else blend_of(path)
