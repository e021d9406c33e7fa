"""The progress bar of a run: tokens, tokens a second, source, loss."""

from __future__ import annotations

import sys
from typing import Any

from examples.quickstart.course import Course
from examples.quickstart.journal import Entry

SECONDS_BETWEEN_LINES = 15.0
"""In a log file every update of the bar is a line of its own."""


class Progress:
    """A bar over all tokens of a run; a context manager.

    Args:
        course: The run.
        first_step: Steps that were trained before.
        shown: Whether this process prints.
    """

    def __init__(self, course: Course, first_step: int, shown: bool) -> None:
        from tqdm import tqdm

        self.course = course
        self.step_tokens = course.global_batch * course.sequence_length
        self.validation = ""
        self.bar: Any = tqdm(
            desc=f"{course.name:>8}",
            total=course.samples * course.sequence_length,
            initial=first_step * self.step_tokens,
            unit="tok",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not shown,
            file=sys.stdout,
            mininterval=0.2 if sys.stdout.isatty() else SECONDS_BETWEEN_LINES,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def show_step(self, entry: Entry) -> None:
        """Move on by a step of training."""
        self.bar.set_postfix_str(f"{entry['source']}, loss {entry['loss']:.3f}{self.validation}", refresh=False)
        self.bar.update(self.step_tokens)

    def show_validation(self, entry: Entry) -> None:
        """Show a validation loss from here on."""
        self.validation = f", validation {entry['loss']:.3f}"

    def show_line(self, line: str) -> None:
        """Print a line above the bar."""
        if not self.bar.disable:
            self.bar.write(line, file=sys.stdout)
