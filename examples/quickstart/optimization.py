"""Optimizer and learning-rate schedule, both Megatron-Core's own, and what the plugin's transition does to them.

Both runs have the same schedule on text: linear warm-up, cosine decay. The NCA phase has one of its own before it, with the
same warm-up's share.
"""

from __future__ import annotations

from typing import Any

from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from examples.quickstart.course import Course
from examples.quickstart.settings import Settings
from megatron_nca.training.options import Options

FINAL_LR_SHARE = 0.1
WEIGHT_DECAY = 0.1


def build_optimizer(model: Any, settings: Settings) -> Any:
    """Build Adam with decoupled weight decay and gradient clipping.

    Args:
        model: A model in Megatron's DistributedDataParallel.
        settings: Give the peak learning rates: of the layers, and of the embeddings.

    Returns:
        A MegatronOptimizer.
    """
    config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=settings.lr * FINAL_LR_SHARE,
        decoupled_lr=settings.embedding_lr,
        decoupled_min_lr=settings.embedding_lr * FINAL_LR_SHARE,
        weight_decay=WEIGHT_DECAY,
        adam_beta1=0.9,
        adam_beta2=0.95,
        clip_grad=1.0,
    )
    optimizer = get_megatron_optimizer(config, [model])
    # Megatron-Core 0.16 tells groups of parameters apart by this mark when it loads a checkpoint, and leaves it unset.
    for group in optimizer.param_groups:
        group["is_decoupled_lr"] = group["max_lr"] != settings.lr
    return optimizer


def build_scheduler(optimizer: Any, settings: Settings, course: Course) -> OptimizerParamScheduler:
    """Build the run's schedule; a step of it is a sample.

    With an NCA phase, its decay covers the phase too, and the transition lets it begin at the switch.

    Args:
        optimizer: Whose learning rate it sets.
        settings: Give peak and warm-up.
        course: The run.
    """
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=settings.lr,
        min_lr=settings.lr * FINAL_LR_SHARE,
        lr_warmup_steps=int(settings.warmup * (course.samples - course.switch)),
        lr_decay_steps=course.samples,
        lr_decay_style="cosine",
        start_wd=WEIGHT_DECAY,
        end_wd=WEIGHT_DECAY,
        wd_incr_steps=course.samples,
        wd_incr_style="constant",
    )


def run_options(settings: Settings, course: Course) -> Options:
    """Return the NCA phase's own rates; what happens at the switch is the default."""
    return Options(
        lr=settings.nca_lr,
        min_lr=settings.nca_lr * FINAL_LR_SHARE,
        lr_warmup_samples=int(settings.warmup * course.switch),
    )
