"""`python -m examples.quickstart`: prepare the text, train with and without the NCA phase, report."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from examples.quickstart.cli import parse_arguments
from examples.quickstart.folder import claim, locked
from examples.quickstart.settings import Launch, QuickstartError, Settings
from examples.quickstart.world import World, enter_world, leave_world, wait_for_all
from megatron_nca.errors import NCAError


def main() -> None:
    """Run the quickstart; what a user can mend is one line on standard error and exit status 2."""
    try:
        settings, launch = parse_arguments()
        quickstart(settings, launch, enter_world())
    except (QuickstartError, NCAError) as error:
        sys.exit(_complain(error))
    leave_world()


def quickstart(settings: Settings, launch: Launch, world: World) -> None:
    """Train both runs to their ends and report.

    Args:
        settings: What decides the result.
        launch: Where and how.
        world: The ranks; all of them call this.

    Raises:
        QuickstartError: Settings and output folder, or settings and ranks, do not fit.
        NCAError: The `nca:` entry does not fit the run.
    """
    micro_batch = settings.train_micro_batch(world.ranks)
    settings.eval_micro_batch(world.ranks)
    with ExitStack() as stack:
        if world.is_first:
            stack.enter_context(locked(launch.out))
            claim(launch.out, settings.to_dict(), launch.fresh)
        text = _prepare_text(settings, launch, world)
        _train(settings, launch, text, world, micro_batch)
        if world.is_first:
            from examples.quickstart.report import report

            report(settings, launch)
        wait_for_all()


def _prepare_text(settings: Settings, launch: Launch, world: World) -> Any:
    from examples.quickstart.text import prepare_text

    folder = launch.out / "text"
    if world.is_first:
        prepare_text(folder, settings.vocab_size)
    wait_for_all()
    return prepare_text(folder, settings.vocab_size)


def _train(settings: Settings, launch: Launch, text: Any, world: World, micro_batch: int) -> None:
    from megatron.core.num_microbatches_calculator import init_num_microbatches_calculator

    import megatron_nca
    from examples.quickstart.course import course_with_nca, course_without_nca
    from examples.quickstart.train import Run

    megatron_nca.register()
    init_num_microbatches_calculator(world.rank, None, settings.global_batch, micro_batch, world.ranks)
    for course in (course_with_nca(settings, text.prefix), course_without_nca(settings, text.prefix)):
        Run(settings, launch, course, text, world).finish()


def _complain(error: Exception) -> int:
    print(f"quickstart: error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
