"""The length and the schedule of a run whose phases have batches of their own.

A stack multiplies steps by its one batch size: for the samples to train on, for its schedule, for the steps of a run in
samples. With batches of phases' own those follow from the plan instead: N steps are N batches, each as large as its phase says.
"""

from __future__ import annotations

from megatron_nca.data.curriculum import Plan
from megatron_nca.errors import CurriculumError
from megatron_nca.interfaces.bridge import ConfigContainer
from megatron_nca.interfaces.megatron_lm import Arguments


def give_samples(args: Arguments, plan: Plan, text_restarts: bool) -> None:
    """Give a run of Megatron-LM's its length and its schedule in samples.

    Args:
        args: Megatron-LM's arguments, its length in steps; changed.
        plan: Laid out for them.
        text_restarts: Whether the text has a schedule of its own, whose warm-up is counted in the run's batches.
    """
    until, batch = plan.batches.position_after, args.global_batch_size
    args.train_iters, args.train_samples = None, plan.samples
    if args.lr_decay_iters is not None:
        args.lr_decay_samples, args.lr_decay_iters = until(args.lr_decay_iters), None
    if args.lr_warmup_iters:
        args.lr_warmup_samples = args.lr_warmup_iters * batch if text_restarts else until(args.lr_warmup_iters)
        args.lr_warmup_iters = 0
    if args.lr_wsd_decay_iters is not None:
        args.lr_wsd_decay_samples, args.lr_wsd_decay_iters = args.lr_wsd_decay_iters * batch, None


def give_steps(cfg: ConfigContainer, plan: Plan, text_restarts: bool) -> None:
    """Give a run of Megatron-Bridge's its steps, or its schedule in samples.

    Args:
        cfg: Bridge's config, validated; changed.
        plan: Laid out for it.
        text_restarts: Whether the text has a schedule of its own.

    Raises:
        CurriculumError: The batches grow, too.
    """
    train, scheduler, until = cfg.train, cfg.scheduler, plan.batches.position_after
    ramp = getattr(train, "rampup_batch_size", None)
    if ramp is not None:
        raise CurriculumError(
            f"train.rampup_batch_size={ramp}: Bridge counts its schedule in batches of one size; "
            "leave it out, or the batch= of the phases"
        )
    if train.train_samples is not None:
        train.train_iters = plan.batches.batches_until(train.train_samples)
        return
    scheduler.lr_decay_steps = until(getattr(scheduler, "lr_decay_iters", None) or train.train_iters)
    scheduler.wd_incr_steps = plan.samples
    if scheduler.lr_warmup_fraction is not None:
        scheduler.lr_warmup_steps = scheduler.lr_warmup_fraction * scheduler.lr_decay_steps
    elif not text_restarts:
        scheduler.lr_warmup_steps = until(getattr(scheduler, "lr_warmup_iters", 0) or 0)
