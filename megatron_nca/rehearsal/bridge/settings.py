"""Bridge's config and Megatron-LM's flags: a table of where each flag's setting stands in a `ConfigContainer`.

A launch of Bridge is planned, laid out and scaled as flags, by what does so for Megatron-LM; here a config is read as flags,
and takes scaled ones back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron_nca.data.phase_word import is_ours
from megatron_nca.frameworks.bridge_config import shared_blend
from megatron_nca.rehearsal.launching import arguments
from megatron_nca.rehearsal.lengths import SPLITS

FIELDS: Mapping[str, tuple[str, ...]] = {
    "--seq-length": ("dataset.seq_length", "dataset.sequence_length", "model.seq_length"),
    "--global-batch-size": ("train.global_batch_size",),
    "--micro-batch-size": ("train.micro_batch_size",),
    "--rampup-batch-size": ("train.rampup_batch_size",),
    "--train-iters": ("train.train_iters",),
    "--train-samples": ("train.train_samples",),
    "--lr": ("optimizer.lr",),
    "--min-lr": ("optimizer.min_lr",),
    "--decoupled-lr": ("optimizer.decoupled_lr",),
    "--decoupled-min-lr": ("optimizer.decoupled_min_lr",),
    **{
        f"--{name.replace('_', '-')}": (f"scheduler.{name}",)
        for name in (
            *("lr_decay_style", "lr_wsd_decay_style", "lr_warmup_fraction", "lr_warmup_init"),
            *(f"lr_{part}_{unit}" for part in ("decay", "warmup", "wsd_decay") for unit in ("iters", "samples")),
        )
    },
    "--split": ("dataset.split",),
    "--num-workers": ("dataset.num_workers",),
    "--dataloader-type": ("dataset.dataloader_type",),
    "--data-cache-path": ("dataset.path_to_cache",),
    "--seed": ("rng.seed",),
    "--log-interval": ("logger.log_interval",),
    "--save": ("checkpoint.save",),
    "--save-interval": ("checkpoint.save_interval",),
    "--load": ("checkpoint.load",),
    "--ckpt-format": ("checkpoint.ckpt_format",),
    "--tokenizer-type": ("tokenizer.tokenizer_type",),
    "--tokenizer-model": ("tokenizer.tokenizer_model",),
    "--vocab-size": ("tokenizer.vocab_size",),
    **{
        f"--{name.replace('_', '-')}": (f"model.{name}",)
        for name in (
            *("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"),
            *("expert_model_parallel_size", "expert_tensor_parallel_size", "hidden_size", "ffn_hidden_size", "kv_channels"),
            *("num_attention_heads", "num_query_groups", "num_layers", "make_vocab_size_divisible_by"),
        )
    },
    "--num-experts": ("model.num_moe_experts",),
    "--mtp-num-layers": ("model.mtp_num_layers",),
    "--hybrid-override-pattern": ("model.hybrid_override_pattern",),
}
"""Flag -> its places in a config; a setting is read from the first, and written to all that there are."""

EVALUATION: Mapping[str, str] = {"--eval-iters": "eval_iters", "--eval-interval": "eval_interval"}
"""Settings of `validation`, or of `train` before Bridge 0.4."""

NONE_IF_ZERO = ("--lr-warmup-iters", "--lr-warmup-samples", "--lr-warmup-init", "--rampup-batch-size")


def flags_of(config: Any) -> tuple[str, ...]:
    """Read a launch's config as Megatron-LM's flags.

    Args:
        config: Bridge's `ConfigContainer`, before Bridge has changed anything in it.

    Returns:
        The flags of its data, length, learning rate, sizes and layout.
    """
    flags: list[str] = list(_data(config.dataset))
    for flag, places in FIELDS.items():
        value = _get(config, places[0])
        if value is None or (flag in NONE_IF_ZERO and not value):
            continue
        flags += [flag, *(map(str, value) if isinstance(value, list) else [str(value)])]
    for flag, name in EVALUATION.items():
        value = getattr(_evaluation(config), name)
        value = max(value) if isinstance(value, list) else value
        flags += [] if value is None else [flag, str(value)]
    model = config.model
    groups = getattr(model, "num_query_groups", None)
    if groups and groups != model.num_attention_heads:
        flags.append("--group-query-attention")
    if getattr(model, "virtual_pipeline_model_parallel_size", None):
        flags += ["--num-virtual-stages-per-pipeline-rank", str(model.virtual_pipeline_model_parallel_size)]
    if getattr(model, "recompute_num_layers", None):
        flags += ["--recompute-num-layers", str(model.recompute_num_layers)]
    return tuple(flags)


def precision_of(model: Any) -> tuple[str, ...]:
    """Read a model's number format as flags, once Bridge has applied its mixed precision."""
    flags = [flag for flag, name in (("--bf16", "bf16"), ("--fp16", "fp16")) if getattr(model, name, False)]
    if getattr(model, "fp8", None):
        flags += ["--fp8-format", str(model.fp8), "--fp8-recipe", str(model.fp8_recipe)]
    if getattr(model, "fp4", None):
        flags += ["--fp4-format", str(model.fp4)]
    return tuple(flags)


def apply(config: Any, flags: Sequence[str]) -> None:
    """Write flags into a config.

    Args:
        config: Bridge's `ConfigContainer`; changed.
        flags: Megatron-LM's. One that has no place in the table is written to the model's setting of its name, if it has one.
    """
    from megatron.core.datasets.utils import get_blend_from_list

    given = arguments(flags)
    paths = {split: given.pop(f"--{split}-data-path", None) for split in SPLITS}
    path = given.pop("--data-path", None)
    if path is not None or any(paths.values()):
        blends = [None if words is None else get_blend_from_list(_words(words)) for words in (path, *paths.values())]
        config.dataset.blend, config.dataset.blend_per_split = blends[0], blends[1:] if any(blends[1:]) else None
        if hasattr(config.dataset, "data_path"):
            config.dataset.data_path = None
    for flag, value in given.items():
        if flag in EVALUATION:
            setattr(_evaluation(config), EVALUATION[flag], int(value))
            continue
        for place in FIELDS.get(flag, (f"model.{flag[2:].replace('-', '_')}",)):
            _set(config, place, [_read(word) for word in value] if isinstance(value, list) else _read(value))


def _data(dataset: Any) -> Iterator[str]:
    per_split = getattr(dataset, "blend_per_split", None)
    if per_split:
        for split, blend in zip(SPLITS, per_split, strict=True):
            yield from (f"--{split}-data-path", *_path(blend)) if blend else ()
    elif hasattr(dataset, "blend") and (blend := shared_blend(dataset)):
        yield from ("--data-path", *_path(blend))


def _path(blend: Any) -> Iterator[str]:
    """Return the words that a blend was, or could have been, made from."""
    words, weights = blend
    for place, word in enumerate(words):
        # A phase has a length and no weight.
        if weights is not None and not (is_ours(word) and "tokens=" in word):
            yield str(weights[place])
        yield word


def _words(value: Any) -> list[str]:
    return list(value) if isinstance(value, list) else [str(value)]


def _evaluation(config: Any) -> Any:
    return getattr(config, "validation", config.train)


def _get(config: Any, place: str) -> Any:
    holder, name = place.split(".")
    return getattr(getattr(config, holder), name, None)


def _set(config: Any, place: str, value: Any) -> None:
    holder, name = place.split(".")
    if hasattr(getattr(config, holder), name):
        setattr(getattr(config, holder), name, value)


def _read(word: Any) -> Any:
    """Return a flag's value: a number where it is one, as Megatron-LM's parser would."""
    for kind in (int, float):
        try:
            return kind(word)
        except (TypeError, ValueError):
            continue
    return word
