"""A launch up to where its ranks would meet: `python -m megatron_nca.rehearsal --arguments-only SCRIPT ARGS...`.

Everything that Megatron-LM and the plugin say of the arguments of the whole launch, of all its ranks, is said by their own
code, in one process. The environment gives the launch's `WORLD_SIZE`. What was found is printed as a line of JSON after `MARK`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

MARK = "arguments: "
_TOKENIZERS = "megatron.training.global_vars"


def install() -> None:
    """Have this process end where its ranks would meet, and a tokenizer that cannot be had here end nothing."""
    import torch

    found: dict[str, Any] = {}
    torch.distributed.init_process_group = _end(found)
    sys.meta_path.insert(0, _Finder(found))


def _end(found: dict[str, Any]) -> Callable[..., None]:
    def init_process_group(*_: Any, **__: Any) -> None:
        from megatron.training import get_args

        args = get_args()
        names = ("data_parallel_size", "world_size", "global_batch_size", "micro_batch_size", "train_iters", "train_samples",
                 "ckpt_format")  # fmt: skip
        print(MARK + json.dumps(found | {name: getattr(args, name, None) for name in names}), flush=True)
        raise SystemExit(0)

    return init_process_group


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps the building of a tokenizer as soon as Megatron-LM's module of it is imported."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name != _TOKENIZERS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            _after(spec.loader, self._found)
        return spec


def _after(loader: Any, found: dict[str, Any]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        module.build_tokenizer = _forgiving(module.build_tokenizer, found)  # type: ignore[attr-defined]

    loader.exec_module = exec_module


def _forgiving(build: Callable[..., Any], found: dict[str, Any]) -> Callable[..., Any]:
    def build_tokenizer(args: Any, *rest: Any, **keywords: Any) -> Any:
        try:
            tokenizer = build(args, *rest, **keywords)
        except Exception as error:
            # Its files, its library or the network may be missing here and there where the run will be.
            lines = str(error).strip().splitlines()
            found["tokenizer_problem"] = f"{type(error).__name__}: {lines[0] if lines else ''}"
            if getattr(args, "padded_vocab_size", None) is None:
                args.padded_vocab_size = args.vocab_size or 0
            return None
        found["vocabulary"] = int(tokenizer.vocab_size)
        return tokenizer

    return build_tokenizer
