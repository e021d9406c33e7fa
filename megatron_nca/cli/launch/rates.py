"""The learning rate over a planned run, by Megatron's own scheduler and the transition's own split of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from megatron_nca.cli.common import UsageError
from megatron_nca.cli.launch.reading import Launch, in_samples
from megatron_nca.cli.launch.schedule import Schedule
from megatron_nca.data.curriculum import Plan
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training import learning_rate, run_length
from megatron_nca.training.options import Options


def learning_rates(launch: Launch, options: Options, plan: Plan, positions: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return the learning rates of the step that begins at each number of consumed samples: of the layers, of the embeddings.

    Args:
        launch: Gives the schedule; ``--lr`` must be there.
        options: The launch's, of the NCA phases.
        plan: Gives the switch.
        positions: Consumed samples, in any order.

    Raises:
        NCAError: The schedule does not fit the run; the message names the flag.
    """
    launch = _in_samples_of_phases(launch, options, plan)
    args = launch.args
    settings = options.transition_settings(args.lr_warmup_fraction)
    layers = {"max_lr": args.lr, "min_lr": args.min_lr, "default_config": True}
    own = {"max_lr": args.decoupled_lr, "min_lr": args.decoupled_min_lr}
    embeddings = {**layers, **{key: rate for key, rate in own.items() if rate is not None}}
    embeddings["default_config"] = embeddings == layers
    groups: list[dict[str, Any]] = [{"lr": 0.0, "weight_decay": 0.0, **group} for group in (layers, embeddings)]
    scheduler = _scheduler(launch, groups)
    if settings.lr == "restart" and plan.switch is not None and plan.switch < launch.samples:
        learning_rate.install(scheduler, plan.switch, settings.phase_lr, settings.text_warmup_fraction, MEGATRON_LM)
    rates: tuple[list[float], list[float]] = ([], [])
    for position in positions:
        scheduler.num_steps = position
        for group, found in zip(groups, rates, strict=True):
            found.append(float(scheduler.get_lr(group)))
    return rates


def _in_samples_of_phases(launch: Launch, options: Options, plan: Plan) -> Launch:
    """Count a schedule in samples, where phases have batches of their own, as the launch does."""
    if not plan.batches.phase_batches or launch.args.train_samples is not None:
        return launch
    args = copy.copy(launch.args)
    run_length.give_samples(args, plan, options.text_restarts)
    return replace(launch, args=args, samples=plan.samples)


def _scheduler(launch: Launch, groups: list[dict[str, Any]]) -> Any:
    """Build Megatron-LM's scheduler as its ``get_optimizer_param_scheduler`` does."""
    args = launch.args
    decay = in_samples(launch, "decay") or launch.samples
    warmup = in_samples(launch, "warmup") or 0
    if args.lr_warmup_fraction is not None:
        warmup = int(args.lr_warmup_fraction * decay)
    final_decay = in_samples(launch, "wsd_decay")
    if args.lr_decay_style == "WSD" and final_decay is None:
        raise UsageError("--lr-decay-style WSD needs --lr-wsd-decay-iters or --lr-wsd-decay-samples")
    if not 0 <= args.min_lr <= args.lr:
        raise UsageError(f"--min-lr {args.min_lr:g}: must lie between 0 and --lr {args.lr:g}")
    if warmup >= decay:
        raise UsageError(f"the learning rate's warm-up of {warmup:,} samples must be shorter than its decay of {decay:,}")
    return Schedule(
        init_lr=args.lr_warmup_init, max_lr=args.lr, min_lr=args.min_lr, lr_warmup_steps=warmup, lr_decay_steps=decay,
        lr_decay_style=args.lr_decay_style, wsd_decay_steps=final_decay, lr_wsd_decay_style=args.lr_wsd_decay_style,
        optimizer=SimpleNamespace(param_groups=groups), wd_incr_steps=launch.samples,
    )  # fmt: skip
