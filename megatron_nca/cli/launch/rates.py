"""The learning rate over a planned run, by Megatron's own scheduler and the transition's own split of it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from megatron_nca.cli.common import UsageError
from megatron_nca.cli.launch.reading import Launch, in_samples
from megatron_nca.data.curriculum import Plan
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training import learning_rate
from megatron_nca.training.options import Options, take_arguments


def learning_rates(launch: Launch, plan: Plan, positions: Sequence[int]) -> list[float]:
    """Return the learning rate of the step that begins at each number of consumed samples.

    Args:
        launch: Gives the schedule; ``--lr`` must be there.
        plan: Gives the switch.
        positions: Consumed samples, in any order.

    Raises:
        NCAError: The schedule does not fit the run; the message names the flag.
    """
    options = Options.read(take_arguments(launch.args), MEGATRON_LM)
    settings = options.transition_settings(launch.args.lr_warmup_fraction)
    group: dict[str, Any] = {"lr": 0.0, "weight_decay": 0.0, "default_config": True}
    scheduler = _scheduler(launch, group)
    if settings.lr == "restart" and plan.switch is not None and plan.switch < launch.samples:
        learning_rate.install(scheduler, plan.switch, settings.phase_lr, settings.text_warmup_fraction, MEGATRON_LM)
    rates = []
    for position in positions:
        scheduler.num_steps = position
        rates.append(float(scheduler.get_lr(group)))
    return rates


def _scheduler(launch: Launch, group: dict[str, Any]) -> Any:
    """Build Megatron-LM's scheduler as its ``get_optimizer_param_scheduler`` does."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    args = launch.args
    decay = in_samples(launch, "decay") or launch.samples
    warmup = in_samples(launch, "warmup") or 0
    if args.lr_warmup_fraction is not None:
        warmup = int(args.lr_warmup_fraction * decay)
    final_decay = in_samples(launch, "wsd-decay".replace("-", "_"))
    if args.lr_decay_style == "WSD" and final_decay is None:
        raise UsageError("--lr-decay-style WSD needs --lr-wsd-decay-iters or --lr-wsd-decay-samples")
    if not 0 <= args.min_lr <= args.lr:
        raise UsageError(f"--min-lr {args.min_lr:g}: must lie between 0 and --lr {args.lr:g}")
    if warmup >= decay:
        raise UsageError(f"the learning rate's warm-up of {warmup:,} samples must be shorter than its decay of {decay:,}")
    return OptimizerParamScheduler(
        SimpleNamespace(param_groups=[group]), init_lr=args.lr_warmup_init, max_lr=args.lr, min_lr=args.min_lr,
        lr_warmup_steps=warmup, lr_decay_steps=decay, lr_decay_style=args.lr_decay_style, start_wd=0.0, end_wd=0.0,
        wd_incr_steps=launch.samples, wd_incr_style="constant", wsd_decay_steps=final_decay,
        lr_wsd_decay_style=args.lr_wsd_decay_style,
    )  # fmt: skip
