"""The training loop of one run: the step, validation at regular counts of text tokens, checkpoints, and going on from one."""

from __future__ import annotations

import math
import time
from typing import Any

from megatron.core.num_microbatches_calculator import get_micro_batch_size, get_num_microbatches

import megatron_nca
from examples.quickstart.checkpoint import Checkpoints, Learner
from examples.quickstart.course import Course
from examples.quickstart.data import build_datasets, clear_cache, micro_batches
from examples.quickstart.evaluation import evaluate
from examples.quickstart.files import write_json
from examples.quickstart.folder import RunFolder
from examples.quickstart.forward import run_batches
from examples.quickstart.journal import Entry, Journal
from examples.quickstart.model import build_model, count_parameters
from examples.quickstart.optimization import build_optimizer, build_scheduler, run_options
from examples.quickstart.progress import Progress
from examples.quickstart.settings import Launch, QuickstartError, Settings
from examples.quickstart.text import Text
from examples.quickstart.world import World, describe_environment, seed_everything
from megatron_nca.training.run import CurriculumRun, OwnLoop


class Run:
    """One of the two runs.

    Args:
        settings: What decides its result.
        launch: Where and how.
        course: What it trains on.
        text: The text.
        world: The ranks.
    """

    def __init__(self, settings: Settings, launch: Launch, course: Course, text: Text, world: World) -> None:
        self.settings, self.launch, self.course, self.text, self.world = settings, launch, course, text, world
        self.folder = RunFolder(launch.out, course.name)
        self.checkpoints = Checkpoints(self.folder.checkpoints, world)

    def finish(self) -> None:
        """Train to the end, from the newest checkpoint if there is one; does nothing if that is the last.

        Raises:
            NCAError: The `nca:` entry does not fit tokenizer or run.
            QuickstartError: The loss is no longer a number, or a checkpoint is missing.
        """
        if self.checkpoints.latest_step() == self.course.steps:
            return
        seed_everything(self.settings.seed)
        run = self._begin_curriculum()
        train_data, valid_data = self._build_datasets()
        learner = self._build_learner()
        self.checkpoints.load(learner)
        run.restore(learner.curriculum, learner.consumed_samples)
        first_step = learner.consumed_samples // self.settings.global_batch
        self._begin_journals(learner, first_step)
        batches = micro_batches(
            train_data, learner.consumed_samples, self.course.samples, get_micro_batch_size(), self.launch.workers
        )
        with Progress(self.course, first_step, shown=self.world.is_first) as progress:
            for step in range(first_step + 1, self.course.steps + 1):
                run.before_step(learner.consumed_samples, [learner.model], learner.optimizer, learner.scheduler)
                progress.show_step(self._train_step(learner, batches, step))
                if self._is_validation_due(step):
                    progress.show_validation(self._validate(learner, valid_data, step))
                if self._is_checkpoint_due(step):
                    learner.curriculum = run.state_dict(learner.consumed_samples)
                    self.checkpoints.save(learner, step)

    def _begin_curriculum(self) -> CurriculumRun:
        run = megatron_nca.register()
        run.attach(OwnLoop())
        run.validate(run_options(self.settings, self.course))
        return run

    def _build_datasets(self) -> tuple[Any, Any]:
        cache = self.launch.out / "index-cache"
        clear_cache(cache, self.world)
        return build_datasets(self.settings, self.course, self.text, cache)

    def _build_learner(self) -> Learner:
        model = build_model(self.settings, self.text.tokenizer.vocab_size)
        optimizer = build_optimizer(model, self.settings)
        return Learner(model, optimizer, build_scheduler(optimizer, self.settings, self.course))

    def _begin_journals(self, learner: Learner, step: int) -> None:
        if self.world.is_first:
            parameters = {"parameters": count_parameters(learner.model)}
            write_json(self.folder.environment, parameters | describe_environment(self.world))
            self.folder.steps.rewind(step)
            self.folder.validations.rewind(step)

    def _train_step(self, learner: Learner, batches: Any, step: int) -> Entry:
        started = time.monotonic()
        # Of the layers; the embeddings have a peak of their own.
        lr = learner.scheduler.get_lr({})
        learner.model.zero_grad_buffer()
        learner.optimizer.zero_grad()
        length = self.settings.sequence_length
        totals = run_batches(batches, learner.model, get_num_microbatches(), sequence_length=length, train=True)
        if not math.isfinite(totals.loss):
            raise QuickstartError(f"the loss of step {step} of {self.course.name} is {totals.loss}; lower the learning rate")
        _, grad_norm, _ = learner.optimizer.step()
        learner.scheduler.step(increment=self.settings.global_batch)
        learner.consumed_samples += self.settings.global_batch
        entry = {
            "step": step,
            "source": self.course.source(step - 1),
            "tokens": self.settings.step_tokens,
            "consumed_samples": learner.consumed_samples,
            "loss": totals.mean_loss,
            "lr": lr,
            "grad_norm": float(grad_norm),
            "samples_digest": totals.digest,
            "seconds": round(time.monotonic() - started, 4),
        }
        self._write(self.folder.steps, entry)
        return entry

    def _validate(self, learner: Learner, dataset: Any, step: int) -> Entry:
        loss = evaluate(learner.model, dataset, self.settings, self.world.ranks)
        entry = {"step": step, "text_tokens": self.course.text_tokens(step), "loss": loss}
        self._write(self.folder.validations, entry)
        return entry

    def _write(self, journal: Journal, entry: Entry) -> None:
        if self.world.is_first:
            journal.append(entry)

    def _is_validation_due(self, step: int) -> bool:
        text_step = step - self.course.switch_step
        return text_step > 0 and (text_step % self.settings.eval_steps == 0 or step == self.course.steps)

    def _is_checkpoint_due(self, step: int) -> bool:
        return step % self.launch.checkpoint_every == 0 or step in (self.course.switch_step, self.course.steps)
