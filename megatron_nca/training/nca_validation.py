"""The option ``valid``: the model on trajectories of held-out rules, beside the stack's validation of text.

A sample is a pure function of its number, so each rank makes those of its micro-batches itself; nothing is broadcast, and every
validation reads the same samples. They go through Megatron's own forward pass: any tensor, pipeline and context parallelism.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.datasets.utils import Split
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_nca.data.builder import make_dataset
from megatron_nca.data.curriculum import Plan
from megatron_nca.data.entry import NCAEntry
from megatron_nca.data.nca_dataset import NCADataset
from megatron_nca.interfaces.core import Model
from megatron_nca.training.cell_accuracy import cells_of_ids, count_cells, most_probable

FRAMES_SEEN = "frames_seen"


@dataclass(frozen=True)
class Result:
    """What a model makes of one entry's held-out rules.

    Attributes:
        entry: The entry as the user wrote it.
        loss: Mean over the labels that the entry trains, in nats.
        accuracy: Share of next frames' cells predicted, or None where the output layer makes no logits.
        by_frames_seen: Accuracy for each number of frames seen, from 1 on; None where no label has seen so many.
    """

    entry: str
    loss: float
    accuracy: float | None
    by_frames_seen: tuple[float | None, ...]

    def describe(self) -> str:
        """Return it in one line, the accuracy at numbers of frames that double."""
        line = f"NCA of held-out rules, {self.entry} | loss: {self.loss:.6E}"
        if self.accuracy is None:
            return f"{line} | no cell accuracy: the output layer is fused with the loss and makes no logits"
        seen = ", ".join(f"{frames}: {self.by_frames_seen[frames - 1]:.4f}" for frames in self.shown_frames)
        return f"{line} | next-frame cell accuracy: {self.accuracy:.4f} | by frames seen: {seen}"

    def scalars(self, suffix: str = "") -> dict[str, float]:
        """Return names and values for TensorBoard and W&B."""
        values = {f"nca/valid-loss{suffix}": self.loss}
        if self.accuracy is not None:
            values[f"nca/valid-cell-accuracy{suffix}"] = self.accuracy
            for frames in self.shown_frames:
                accuracy = self.by_frames_seen[frames - 1]
                if accuracy is not None:
                    values[f"nca/valid-cell-accuracy-after-{frames}-frames{suffix}"] = accuracy
        return values

    @property
    def shown_frames(self) -> list[int]:
        """1, 2, 4, ... frames, and the most there are."""
        last = max((n for n, value in enumerate(self.by_frames_seen, 1) if value is not None), default=0)
        doubling = [2**power for power in range(last.bit_length())]
        return [n for n in sorted({*doubling, last}) if 0 < n <= last and self.by_frames_seen[n - 1] is not None]


@dataclass(frozen=True)
class Batches:
    """How much is evaluated, and how it is cut.

    Attributes:
        number: Global batches of each entry.
        global_size: Samples of one.
        micro_size: Samples of a forward pass.
    """

    number: int
    global_size: int
    micro_size: int


def validate(plan: Plan, model: Model, batches: Batches, config: Any, padded_vocab_size: int | None = None) -> list[Result]:
    """Evaluate every entry of a plan; called on all ranks.

    Args:
        plan: Gives the entries.
        model: Megatron's model chunks.
        batches: How much.
        config: Megatron's dataset config of the training data.
        padded_vocab_size: Rows of the model's embedding, or None to ask the model.

    Returns:
        A result for each entry, the same on every rank.
    """
    modes = [chunk.training for chunk in model]
    for chunk in model:
        chunk.eval()
    try:
        with torch.no_grad():
            return [
                _validate_entry(entry, stream, model, batches, config, padded_vocab_size)
                for entry, stream in zip(plan.curriculum.entries, plan.curriculum.streams, strict=True)
            ]
    finally:
        for chunk, training in zip(model, modes, strict=True):
            chunk.train(training)


def _validate_entry(
    entry: NCAEntry, stream: int, model: Model, batches: Batches, config: Any, padded_vocab_size: int | None
) -> Result:
    ranks = parallel_state.get_data_parallel_world_size()
    micro_batches = batches.global_size // (batches.micro_size * ranks)
    dataset = make_dataset(entry, stream, batches.number * batches.global_size, Split.valid, config, padded_vocab_size)
    counter = _Counter(dataset, model[-1], padded_vocab_size)
    for number in range(batches.number):
        samples = _micro_batches(dataset, number * batches.global_size, batches.micro_size, micro_batches)
        # Without this, Megatron's timers would count the validation's forward passes as the training's.
        model_config = _unwrap(model[0]).config
        timers, model_config.timers = model_config.timers, None
        try:
            collected = get_forward_backward_func()(
                forward_step_func=counter.forward_step,
                data_iterator=[samples() for _ in model] if len(model) > 1 else samples(),
                model=list(model),
                num_microbatches=micro_batches,
                seq_length=config.sequence_length,
                micro_batch_size=batches.micro_size,
                forward_only=True,
                collect_non_loss_data=True,
            )
        finally:
            model_config.timers = timers
        for counts in collected:
            counter.add(counts)
    return counter.result(entry)


def _micro_batches(dataset: NCADataset, first: int, size: int, number: int) -> Any:
    """Return what makes an iterator over this rank's micro-batches of a global batch, each model chunk its own."""
    rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    frames_seen = torch.from_numpy(dataset.layout.frames_seen(dataset.entry.config))

    def iterate() -> Iterator[dict[str, torch.Tensor]]:
        for micro_batch in range(number):
            begin = first + (micro_batch * ranks + rank) * size
            samples = [{**dataset[begin + place], FRAMES_SEEN: frames_seen} for place in range(size)]
            yield torch.utils.data.default_collate(samples)

    return iterate


class _Counter:
    """Sums of an entry's losses and cells over micro-batches."""

    def __init__(self, dataset: NCADataset, last_chunk: Any, padded_vocab_size: int | None) -> None:
        config = dataset.entry.config
        padded_vocab_size = padded_vocab_size or int(_unwrap(last_chunk).vocab_size)
        self._last_chunk = last_chunk
        self._frames = int(dataset.layout.frames_seen(config).max()) + 1
        self._vocab_size = padded_vocab_size
        device = torch.device("cuda", torch.cuda.current_device())
        self._cells = cells_of_ids(config, torch.from_numpy(dataset.dataset.ids), padded_vocab_size).to(device)
        self._sums = torch.zeros(3 + 2 * self._frames, dtype=torch.float64, device=device)

    def forward_step(self, samples: Any, chunk: Any, *rest: Any) -> tuple[torch.Tensor, Any]:
        """Take one micro-batch through one model chunk, as Megatron's schedules ask."""
        batch = _on_this_context_rank({name: value.cuda(non_blocking=True) for name, value in next(samples).items()})
        with _logits(chunk) as logits:
            output = chunk(batch["tokens"], batch["position_ids"], batch.get("attention_mask"), labels=batch["labels"])
        return output, partial(self._count, batch, logits)

    def _count(
        self, batch: dict[str, torch.Tensor], logits: list[torch.Tensor], losses: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        mask = batch["loss_mask"].double()
        total = torch.stack([(losses.double() * mask).sum(), mask.sum(), mask.new_zeros(())])
        if not logits:
            return torch.cat([total, mask.new_zeros(2 * self._frames)])
        total[2] = 1
        # Multi-token prediction passes through the output layer too, and the main prediction last; (sequence, batch, ids).
        scores = logits.pop().transpose(0, 1)
        logits.clear()
        split = scores.shape[-1] != self._vocab_size
        first = parallel_state.get_tensor_model_parallel_rank() * scores.shape[-1] if split else 0
        group = parallel_state.get_tensor_model_parallel_group() if split else None
        predicted = most_probable(scores, first, group)
        counts = count_cells(self._cells, predicted, batch["labels"], batch[FRAMES_SEEN], self._frames)
        return torch.cat([total, counts.flatten()])

    def add(self, counts: torch.Tensor) -> None:
        """Add what ``forward_step`` collected of a micro-batch."""
        self._sums += counts

    def result(self, entry: NCAEntry) -> Result:
        """Sum over all ranks, of which one of each tensor-parallel group on the last pipeline stage speaks."""
        if not parallel_state.is_pipeline_last_stage(ignore_virtual=True) or parallel_state.get_tensor_model_parallel_rank():
            self._sums.zero_()
        torch.distributed.all_reduce(self._sums)
        loss, labels, with_logits, *counts = self._sums.tolist()
        right, there = counts[1 : self._frames], counts[self._frames + 1 :]
        by_frames = tuple(r / t if t else None for r, t in zip(right, there, strict=True))
        accuracy = sum(right) / sum(there) if with_logits and sum(there) else None
        return Result(entry.text, loss / max(labels, 1), accuracy, by_frames)


@contextmanager
def _logits(chunk: Any) -> Iterator[list[torch.Tensor]]:
    """Collect what a model chunk's output layer returns."""
    collected: list[torch.Tensor] = []
    layer = getattr(_unwrap(chunk), "output_layer", None)
    if layer is None:
        yield collected
        return

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        collected[:] = [output[0] if isinstance(output, tuple) else output]

    handle = layer.register_forward_hook(keep)
    try:
        yield collected
    finally:
        handle.remove()


def _unwrap(chunk: Any) -> Any:
    while hasattr(chunk, "module"):
        chunk = chunk.module
    return chunk


def _on_this_context_rank(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return this rank's part of the sequences: of 2 n chunks, the rank's from the front and from the back."""
    ranks, rank = parallel_state.get_context_parallel_world_size(), parallel_state.get_context_parallel_rank()
    if ranks == 1:
        return batch
    parts = {}
    for name, value in batch.items():
        dimension = 2 if name == "attention_mask" else 1
        chunks = value.chunk(2 * ranks, dim=dimension)
        parts[name] = torch.cat([chunks[rank], chunks[2 * ranks - 1 - rank]], dim=dimension).contiguous()
    return parts
