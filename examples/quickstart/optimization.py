"""Optimizer and learning-rate schedule, both Megatron-Core's own."""

from __future__ import annotations

from typing import Any

from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from examples.quickstart.settings import Settings

FINAL_LR_SHARE = 0.1
WEIGHT_DECAY = 0.1


def build_optimizer(model: Any, lr: float) -> Any:
    """Build Adam with decoupled weight decay and gradient clipping.

    Args:
        model: A model in Megatron's DistributedDataParallel.
        lr: Peak learning rate.

    Returns:
        A MegatronOptimizer.
    """
    config = OptimizerConfig(
        optimizer="adam",
        lr=lr,
        min_lr=lr * FINAL_LR_SHARE,
        weight_decay=WEIGHT_DECAY,
        adam_beta1=0.9,
        adam_beta2=0.95,
        clip_grad=1.0,
    )
    return get_megatron_optimizer(config, [model])


def build_scheduler(optimizer: Any, settings: Settings, lr: float, samples: int) -> OptimizerParamScheduler:
    """Build a schedule that rises linearly and falls as a cosine over a number of samples.

    Args:
        optimizer: Whose learning rate it sets.
        settings: Gives the warm-up's share.
        lr: Peak learning rate.
        samples: Over which it runs; a step of the scheduler is a sample.

    Returns:
        The scheduler.
    """
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=lr,
        min_lr=lr * FINAL_LR_SHARE,
        lr_warmup_steps=int(settings.warmup * samples),
        lr_decay_steps=samples,
        lr_decay_style="cosine",
        start_wd=WEIGHT_DECAY,
        end_wd=WEIGHT_DECAY,
        wd_incr_steps=samples,
        wd_incr_style="constant",
    )
