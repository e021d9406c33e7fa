"""The launch's own validation, given what its words tell."""

from __future__ import annotations

from megatron_nca.cli.launch.reading import Launch
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training.options import Options, take_arguments
from megatron_nca.training.run_info import RunInfo
from megatron_nca.training.validating import validate


def run_info(launch: Launch) -> RunInfo:
    """Return what Megatron-LM's arguments tell of a run, as its adapter does once they are validated."""
    args = launch.args
    return RunInfo(
        loader=args.dataloader_type, blends=launch.blends, validation_sets_apart=args.multiple_validation_sets,
        global_batch_size=args.global_batch_size, micro_batch_size=args.micro_batch_size, sequence_length=args.seq_length,
        train_samples=args.train_samples, train_iterations=args.train_iters, text_warmup_fraction=args.lr_warmup_fraction,
        eval_batches=args.eval_iters, args=args,
    )  # fmt: skip


def validated_options(launch: Launch) -> Options:
    """Return a launch's options, taken off its arguments.

    Raises:
        NCAError: The launch would be refused.
    """
    given = {key: value for key, value in take_arguments(launch.args).items() if value is not None}
    options = Options.read(given, MEGATRON_LM)
    validate(options, run_info(launch), MEGATRON_LM)
    return options
