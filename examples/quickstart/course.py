"""The course of a run: so many samples of NCA, then so many of text. Arithmetic alone; no data is read.

Both runs have the same text. The plugin rounds the phase's end up to a global batch, so the text starts on an optimizer step.
"""

from __future__ import annotations

from dataclasses import dataclass

from examples.quickstart.folder import BASELINE, WITH_NCA
from examples.quickstart.settings import Settings
from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend

NCA = "nca"
TEXT = "text"


@dataclass(frozen=True)
class Course:
    """What a run consists of.

    Attributes:
        name: Of the run and of its folder.
        blend: Megatron's (prefixes, weights).
        switch: Consumed samples at which the text begins.
        samples: Training samples in all.
        sequence_length: Tokens of a sample.
        global_batch: Samples of an optimizer step.
    """

    name: str
    blend: tuple[list[str], None]
    switch: int
    samples: int
    sequence_length: int
    global_batch: int

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.samples // self.global_batch

    @property
    def switch_step(self) -> int:
        """Optimizer steps before the text begins."""
        return self.switch // self.global_batch

    def source(self, step: int) -> str:
        """Return what the step after `step` steps trains on, `nca` or `text`."""
        return NCA if step < self.switch_step else TEXT

    def text_tokens(self, step: int) -> int:
        """Return how many tokens of text the first `step` steps hold."""
        return max(step - self.switch_step, 0) * self.global_batch * self.sequence_length


def course_with_nca(settings: Settings, text_prefix: str) -> Course:
    """Return the course of the run that starts with the `nca:` entry.

    Raises:
        NCAError: The entry does not fit the run.
    """
    blend: tuple[list[str], None] = ([settings.entry, text_prefix], None)
    boundaries = BatchBoundaries(settings.global_batch)
    plan = plan_training(read_blend(blend), settings.sequence_length, settings.global_batch, boundaries)
    return _course(WITH_NCA, blend, plan.phases[-1].end, settings)


def course_without_nca(settings: Settings, text_prefix: str) -> Course:
    """Return the course of the run on text alone."""
    return _course(BASELINE, ([text_prefix], None), 0, settings)


def _course(name: str, blend: tuple[list[str], None], switch: int, settings: Settings) -> Course:
    samples = switch + settings.text_steps * settings.global_batch
    return Course(name, blend, switch, samples, settings.sequence_length, settings.global_batch)
