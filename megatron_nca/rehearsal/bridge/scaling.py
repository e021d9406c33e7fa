"""A config of Bridge's made one that a CPU trains in seconds: what a GPU alone has goes, sizes shrink, the kind stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megatron_nca.rehearsal.bridge import names, settings
from megatron_nca.rehearsal.launching import arguments
from megatron_nca.rehearsal.scaling import SMALLER

ON_A_CPU: Mapping[str, Mapping[str, Any]] = {
    "model": {
        **dict.fromkeys(
            (
                *("masked_softmax_fusion", "bias_activation_fusion", "bias_dropout_fusion", "apply_rope_fusion"),
                *("persist_layer_norm", "gradient_accumulation_fusion", "cross_entropy_loss_fusion", "moe_permute_fusion"),
                *("moe_router_fusion", "moe_enable_deepep", "moe_shared_expert_overlap", "delay_wgrad_compute"),
                *("overlap_moe_expert_parallel_comm", "defer_embedding_wgrad_compute", "enable_cuda_graph"),
                *("external_cuda_graph", "use_te_rng_tracker", "fine_grained_activation_offloading", "cpu_offloading"),
                *("use_transformer_engine_op_fuser", "tp_comm_overlap", "use_transformer_engine_full_layer_spec"),
                *("account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split"),
            ),
            False,
        ),
        **dict.fromkeys(
            (
                *("offload_modules", "pipeline_model_parallel_layout", "num_layers_in_first_pipeline_stage"),
                *("num_layers_in_last_pipeline_stage", "virtual_pipeline_model_parallel_size", "moe_flex_dispatcher_backend"),
                "expert_tensor_parallel_size",
            )
        ),
        "cuda_graph_impl": "none",
    },
    "optimizer": {"optimizer_cpu_offload": False},
    "ddp": {"nccl_ub": False, "fsdp_double_buffer": False},
    "rng": {"te_rng_tracker": False},
    "dist": {
        **{"distributed_backend": "gloo", "use_sharp": False, "lazy_init": False},
        **dict.fromkeys(("nccl_communicator_config_path", "sharp_enabled_group", "high_priority_stream_groups")),
    },
    "train": {
        **dict.fromkeys(("exit_interval", "exit_duration_in_mins", "train_samples", "train_iters", "rampup_batch_size")),
        "exit_signal_handler": False,
    },
    "scheduler": {
        **dict.fromkeys(
            ("lr_warmup_fraction", "lr_decay_iters", "lr_decay_samples", "lr_wsd_decay_iters", "lr_wsd_decay_samples")
        ),
        **{"lr_warmup_iters": 0, "lr_warmup_samples": 0},
    },
    "checkpoint": {
        **{"async_save": False, "finetune": False, "most_recent_k": -1, "also_save_hf_checkpoint": False},
        **dict.fromkeys(
            ("load", "pretrained_checkpoint", "ckpt_step", "non_persistent_save_interval", "non_persistent_ckpt_type")
        ),
        "ckpt_assume_constant_structure": False,
    },
    "logger": {
        **dict.fromkeys(
            ("tensorboard_dir", "wandb_project", "wandb_exp_name", "mlflow_experiment", "comet_project", "save_config_filepath")
        ),
        **{"log_energy": False, "log_progress": False},
    },
    "profiling": {"use_pytorch_profiler": False, "use_nsys_profiler": False, "record_memory_history": False},
}
"""Settings of a run on a CPU, by the part of the config that has them; what a version lacks is passed over."""

FUSED = ("apply_rope_fusion", "gradient_accumulation_fusion")
"""Settings of a model that Megatron-Core refuses where Transformer Engine is not installed."""

ABSENT = ("comm_overlap", "ft", "straggler", "nvrx_straggler", "inprocess_restart", "tensor_inspect")
"""Parts of a config that a run on a CPU does without."""

WITHOUT_ENGINE: Mapping[str, Mapping[str, Any]] = {
    "model": {"transformer_impl": "local", "sequence_parallel": False, "moe_grouped_gemm": False},
    "optimizer": {"use_precision_aware_optimizer": False},
    "mixed_precision": {
        **{"fp8": None, "fp4": None, "first_last_layers_bf16": False},
        **dict.fromkeys(("fp8_param", "fp8_param_gather", "reuse_grad_buf_for_mxfp8_param_ag"), False),
    },
}
"""Settings where Transformer Engine's Python is not installed, or has no form of the layout for a CPU."""

OWN_PLACES = ("train", "scheduler", "checkpoint", "logger")
"""Parts whose settings the rehearsal replaces by its own, which is no loss."""

TOLD_OTHERWISE = ("--transformer-impl", "--num-layers-per-virtual", "--max-position", "--nca-")
"""Flags that are no setting of a config, by how they begin."""

MODEL_NAMES = {"num_experts": "num_moe_experts"}
WORKERS = 2


def scale(config: Any, flags: Sequence[str]) -> tuple[str, ...]:
    """Scale a config in place.

    Args:
        config: Bridge's `ConfigContainer`, before Bridge has changed anything in it.
        flags: What it becomes, as Megatron-LM's flags.

    Returns:
        The settings that were not kept, by their names in the config.
    """
    settings_of_launch = _snapshot(config)
    engine = arguments(flags).get("--transformer-impl") != "local"
    _resolve_precision(config)
    for part in ABSENT:
        if hasattr(config, part):
            setattr(config, part, None)
    for table in (ON_A_CPU, {} if engine else WITHOUT_ENGINE):
        for part, values in table.items():
            _update(getattr(config, part, None), values)
    _shrink(config.model)
    settings.apply(config, _known(flags))
    _finish(config, flags, engine)
    return tuple(name for name, value in settings_of_launch.items() if _lost(config, name, value))


def without_fusions(model: Any) -> None:
    """Take out of a model what is refused for this machine's sake and not for the launch's."""
    if not names.has_engine():
        _update(model, dict.fromkeys(FUSED, False))


def _resolve_precision(config: Any) -> None:
    if isinstance(config.mixed_precision, str):
        from megatron.bridge.training.mixed_precision import get_mixed_precision_config

        config.mixed_precision = get_mixed_precision_config(config.mixed_precision)


def _update(part: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if hasattr(part, name):
            setattr(part, name, value)


def _shrink(model: Any) -> None:
    for flag, value in SMALLER.items():
        name = flag[2:].replace("-", "_")
        name = MODEL_NAMES.get(name, name)
        if getattr(model, name, None):
            setattr(model, name, value)


def _known(flags: Sequence[str]) -> list[str]:
    """Leave out what is told to the config otherwise."""
    kept, skipping = [], False
    for word in flags:
        if word.startswith("--"):
            skipping = word.startswith(TOLD_OTHERWISE)
        if not skipping:
            kept.append(word)
    return kept


def _finish(config: Any, flags: Sequence[str], engine: bool) -> None:
    from megatron.core.transformer.enums import AttnBackend

    model = config.model
    model.attention_backend = AttnBackend.unfused
    if getattr(model, "moe_token_dispatcher_type", None) == "flex":
        model.moe_token_dispatcher_type = "alltoall"
    if getattr(model, "multi_latent_attention", False):
        # Megatron-Core's other embedding asks PyTorch for a device by its number.
        model.rope_type = "rope"
    if "--group-query-attention" not in flags and "--num-query-groups" not in flags and model.num_query_groups is not None:
        model.num_query_groups = model.num_attention_heads
    if any(flag.startswith("--num-layers-per-virtual") for flag in flags):
        model.virtual_pipeline_model_parallel_size = 2
    if not engine:
        model.transformer_layer_spec = local_layers
        if getattr(model, "mtp_num_layers", None):
            model.mtp_num_layers = None
    if model.tensor_model_parallel_size == 1:
        model.sequence_parallel = False
    if model.pipeline_model_parallel_size > 1:
        import torch

        model.pipeline_dtype = model.pipeline_dtype or torch.bfloat16
    config.dataset.num_workers = min(config.dataset.num_workers, WORKERS)


def local_layers(config: Any, vp_stage: int | None = None) -> Any:
    """Return Megatron-Core's own layers of a model's kind, for where there is no Transformer Engine."""
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

    return get_gpt_decoder_block_spec(
        config, use_transformer_engine=False, normalization=config.normalization, vp_stage=vp_stage
    )


def _snapshot(config: Any) -> dict[str, Any]:
    """Return what a launch has of the settings that may have to go."""
    found = {part: getattr(config, part, None) for part in ABSENT}
    for table in (ON_A_CPU, WITHOUT_ENGINE):
        for part, values in table.items():
            holder = getattr(config, part, None)
            found |= {f"{part}.{name}": getattr(holder, name) for name in values if hasattr(holder, name)}
    return {name: value for name, value in found.items() if value not in (None, False, "none", "nccl")}


def _lost(config: Any, name: str, value: Any) -> bool:
    part, _, setting = name.partition(".")
    if part in OWN_PLACES:
        return False
    now = getattr(config, part, None)
    return bool((getattr(now, setting, None) if setting else now) != value)
