"""The running loss of NCA and of text samples, apart, where a batch mixes them.

Which samples of a micro-batch are NCA follows from their place in the run, so nothing has to travel with the data. Sums stay on
the device; ranks meet once a report. In the steps of a pure phase Megatron's own loss says it all, and nothing is done.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from dataclasses import dataclass

import torch
from megatron.core import parallel_state

from megatron_nca.data.curriculum import Plan
from megatron_nca.interfaces.core import ForwardStep, LossFunction


@dataclass(frozen=True)
class MicroBatches:
    """Where the samples of this rank's micro-batches of a step stand in the run.

    Attributes:
        consumed_samples: Samples of the steps before.
        size: Samples of a micro-batch.
        rank: This rank's number among the data-parallel ranks.
        ranks: Number of data-parallel ranks.
        number: Micro-batches of a rank in this step.
    """

    consumed_samples: int
    size: int
    rank: int
    ranks: int
    number: int

    def positions(self, micro_batch: int) -> range:
        """Return the positions of a micro-batch's samples, as Megatron's sequential sampler deals them out."""
        # A step that is run again to check its result counts on.
        turn = micro_batch % self.number * self.ranks + self.rank
        begin = self.consumed_samples + turn * self.size
        return range(begin, begin + self.size)


class SourceLosses:
    """Sums of losses and labels since the last report.

    Args:
        plan: Tells which positions are NCA.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sums: torch.Tensor | None = None
        self._watched_steps = 0
        self._step: MicroBatches | None = None
        self._micro_batches_done = 0
        last = self._nca(plan.samples)
        positions = range(plan.samples + 1)
        self._first_text = bisect_left(positions, 1, key=lambda n: n - self._nca(n)) - 1
        self._end_of_nca = bisect_left(positions, last, key=self._nca)

    def _nca(self, samples: int) -> int:
        return self._plan.nca_and_text(self._plan.schedule.counts(samples))[0]

    def covers(self, consumed_samples: int, batch: int) -> bool:
        """Tell whether a step of ``batch`` samples lies where NCA and text alternate: from the first text to the last NCA."""
        return consumed_samples < self._end_of_nca and consumed_samples + batch > self._first_text

    def begin_step(self, step: MicroBatches) -> None:
        """Take where the samples of the coming step stand; where they do not mix, nothing is watched."""
        self._step = step if self.covers(step.consumed_samples, step.size * step.ranks * step.number) else None
        self._micro_batches_done = 0
        self._watched_steps += self._step is not None

    def watch(self, forward_step: ForwardStep) -> ForwardStep:
        """Return the forward step of this step, its loss function observed if the step mixes NCA and text.

        Args:
            forward_step: Megatron's; returns the output and a loss function bound to its loss mask.
        """
        if self._step is None:
            return forward_step

        @functools.wraps(forward_step)
        def watched_forward_step(*arguments: object, **keywords: object) -> tuple[torch.Tensor, LossFunction]:
            output, loss_function = forward_step(*arguments, **keywords)
            mask = _mask_of(loss_function)
            if mask is None:
                return output, loss_function

            @functools.wraps(getattr(loss_function, "func", loss_function))
            def watched_loss_function(losses: torch.Tensor, *rest: object, **others: object) -> object:
                self.observe(losses, mask)
                return loss_function(losses, *rest, **others)

            return output, watched_loss_function

        return watched_forward_step

    def observe(self, losses: torch.Tensor, mask: torch.Tensor) -> None:
        """Add the losses of the step's next micro-batch; nothing where the step does not mix NCA and text.

        Args:
            losses: Loss of every label, in any shape with the micro-batch's samples first.
            mask: Which labels count, of as many elements.
        """
        if self._step is None or losses.numel() != mask.numel():
            return
        positions = self._step.positions(self._micro_batches_done)
        self._micro_batches_done += 1
        is_nca = [self._plan.sources[self._plan.schedule.locate(position)[0]].is_nca for position in positions]
        rows = mask.reshape(len(positions), -1).double()
        sums = torch.stack([(losses.detach().reshape(rows.shape).double() * rows).sum(dim=1), rows.sum(dim=1)])
        weights = torch.tensor([[float(nca), float(not nca)] for nca in is_nca], dtype=torch.float64)
        added = sums @ weights.to(sums.device, non_blocking=True)
        self._sums = added if self._sums is None else self._sums + added

    def report(self) -> dict[str, float]:
        """Return the mean losses since the last report and begin anew; called on all ranks.

        Returns:
            ``nca/loss`` and ``text/loss``, the same on every rank, if a step was covered; nothing otherwise.
        """
        steps, self._watched_steps = self._watched_steps, 0
        sums, self._sums = self._sums, None
        if not steps:
            return {}
        if sums is None:
            sums = torch.zeros(2, 2, dtype=torch.float64, device=torch.device("cuda", torch.cuda.current_device()))
        # Tensor-parallel ranks have the same losses, so that one of them speaks for all.
        if not parallel_state.is_pipeline_last_stage(ignore_virtual=True) or parallel_state.get_tensor_model_parallel_rank():
            sums = torch.zeros_like(sums)
        torch.distributed.all_reduce(sums)
        losses, labels = sums.tolist()
        named = zip(("nca/loss", "text/loss"), losses, labels, strict=True)
        return {name: loss / count for name, loss, count in named if count}


def _mask_of(loss_function: LossFunction) -> torch.Tensor | None:
    """Return the loss mask that a pre-training script has bound to its loss function, or None if it does it otherwise."""
    bound = getattr(loss_function, "args", ())
    return bound[0] if bound and isinstance(bound[0], torch.Tensor) else None
