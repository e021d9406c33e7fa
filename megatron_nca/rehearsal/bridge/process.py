"""In the process of a launch of Bridge: its config is read and the process ended, or scaled down and trained.

Both happen where Bridge's `pretrain` is given the config, whichever script has made it.

    MEGATRON_NCA_SCALED     a file of JSON: the flags of the scaled run, and whether the model's figures cannot be had
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from megatron_nca.patching import after_import
from megatron_nca.rehearsal.bridge import hub, names, scaling, settings
from megatron_nca.rehearsal.launching import arguments

VARIABLE = "MEGATRON_NCA_SCALED"
MARK = "config: "
FILE = "scaled.json"
LEFT_OUT = "left-out.json"
"""The file beside the one of the flags in which the first rank names the settings that were not kept."""

_MODULE = "megatron.bridge.training.pretrain"
_SETUP = "megatron.bridge.training.setup"
_WARMUP = "--nca-lr-warmup-samples"


def install_reading() -> None:
    """Have this process end where its ranks would meet, with the config of the launch printed as JSON after `MARK`."""
    import torch

    found: dict[str, Any] = {}
    hub.go_offline(at_once=False)
    names.provide()
    hub.install(False, functools.partial(found.__setitem__, "model_problem"))
    _before_pretrain(functools.partial(_read, found))
    _around_options(functools.partial(_keep_options, found))
    torch.distributed.init_process_group = functools.partial(_end, found)


def install_scaling() -> None:
    """Scale the config of this process as the environment says, if it says so."""
    name = os.environ.get(VARIABLE)
    if not name:
        return
    told = json.loads(Path(name).read_text(encoding="utf-8"))
    hub.go_offline(at_once=True)
    names.provide()
    hub.install(bool(told["figures"]), lambda line: print(line, flush=True))
    _before_pretrain(functools.partial(_scale, told, Path(name).with_name(LEFT_OUT)))
    warmup = arguments(told["flags"]).get(_WARMUP)
    if warmup is not None:
        _around_options(lambda options: replace(options, lr_warmup_samples=int(warmup)))


def _before_pretrain(act: Callable[[Any], None]) -> None:
    def change(module: ModuleType) -> None:
        original = module.pretrain

        @functools.wraps(original)
        def pretrain(config: Any, *rest: Any, **keywords: Any) -> Any:
            act(config)
            return original(config, *rest, **keywords)

        module.pretrain = pretrain  # type: ignore[attr-defined]

    after_import(_MODULE, change)


def _around_options(change: Callable[[Any], Any]) -> None:
    from megatron_nca.training.run import CurriculumRun

    original = CurriculumRun.validate

    def validate(run: Any, options: Any = None) -> None:
        original(run, change(options or run.options))

    CurriculumRun.validate = validate  # type: ignore[method-assign, assignment]


def _read(found: dict[str, Any], config: Any) -> None:
    if "model_problem" in found:
        config.model.vocab_size = None
    found["flags"] = settings.flags_of(config)
    found["config"] = config
    scaling.without_fusions(config.model)
    # Reading a launch writes nothing and starts no process.
    config.checkpoint.async_save = False
    config.logger.save_config_filepath = None


def _keep_options(found: dict[str, Any], options: Any) -> Any:
    from megatron_nca.stacks import MEGATRON_LM

    words = []
    for name in options.given:
        value = getattr(options, name)
        value = (",".join(value) or "none") if isinstance(value, tuple) else value
        words += MEGATRON_LM.option(name, value).split(" ", 1)
    found["options"] = words
    return options


def _end(found: dict[str, Any], *_: Any, **__: Any) -> None:
    config = found.pop("config")
    found["flags"] = [*found["flags"], *settings.precision_of(config.model), *found.pop("options", ())]
    found["parallel"] = config.data_parallel_size
    found["global_batch_size"] = config.train.global_batch_size
    found |= _tokenizer(config)
    print(MARK + json.dumps(found), flush=True)
    # Bridge takes any other end of a training for a failure, and tells of it, since 0.6.
    os._exit(0)


def _tokenizer(config: Any) -> dict[str, Any]:
    """Build the tokenizer, and have Bridge compare it with the model; one that cannot be had here ends nothing."""
    module: Any = sys.modules[_SETUP]
    try:
        tokenizer = module.build_tokenizer(config.tokenizer)
    except Exception as error:
        lines = str(error).strip().splitlines()
        return {"tokenizer_problem": f"{type(error).__name__}: {lines[0] if lines else ''}"}
    module._validate_and_set_vocab_size(config.model.vocab_size, tokenizer.vocab_size)
    return {"vocabulary": int(tokenizer.vocab_size)}


def _scale(told: dict[str, Any], left_out: Path, config: Any) -> None:
    lost = scaling.scale(config, told["flags"])
    if told["figures"]:
        # Another model's: the tokenizer's own ids instead.
        config.model.vocab_size = None
    if os.environ.get("RANK", "0") == "0":
        left_out.write_text(json.dumps(lost), encoding="utf-8")
