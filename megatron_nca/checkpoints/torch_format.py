"""The format ``torch``: a file a tensor-, pipeline- and expert-parallel rank, ``mp_rank_TT[_PPP][_EEE]/model_optim_rng.pt``.

A file is read by mapping it, so the optimizer's state is never loaded, and one rank is worked on at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_nca.checkpoints import pickling, scaling
from megatron_nca.checkpoints.arguments import read_args, restart
from megatron_nca.checkpoints.folder import RANK_FILE
from megatron_nca.checkpoints.reinit import LAYER, NewWeight, ReinitSpec
from megatron_nca.checkpoints.release import Advance, WriteResult, check_vocabulary, without_run_state
from megatron_nca.errors import NCAError
from megatron_nca.training import weights

RANK = re.compile(r"^mp_rank_(\d+)(?:_(\d+))?(?:_(\d+))?$")
CHUNK = re.compile(r"^model(\d*)$")

PARTITIONED = {"linear_qkv": 0, "linear_fc1": 0, "linear_proj": 1, "linear_fc2": 1}
"""Which dimension of a layer's weight tensor-parallel ranks share; files do not say."""


@dataclass(frozen=True)
class _Rank:
    """One file.

    Attributes:
        path: Path of the file.
        tensor: Rank of tensor parallelism.
        pipeline: Rank of pipeline parallelism.
    """

    path: Path
    tensor: int
    pipeline: int


class TorchCheckpoint:
    """A checkpoint of the format ``torch``.

    Args:
        folder: Folder of one iteration.

    Raises:
        NCAError: A rank's file is missing, or not Megatron-LM's.
    """

    format = "torch"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        first = min(folder.glob(f"mp_rank_*/{RANK_FILE}"))
        state = _read(first)
        self.args = read_args(state, first)
        self.iteration = int(state.get("iteration", 0))
        self.tensor_parallel = int(self.args.tensor_model_parallel_size)
        self.pipeline_parallel = int(getattr(self.args, "pipeline_model_parallel_size", 1))
        self._ranks = self._find_ranks()

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(rank.path.stat().st_size for rank in self._ranks)

    def write(self, folder: Path, reinit: ReinitSpec, mark: dict[str, Any], advance: Advance) -> WriteResult:
        """Write the start of a text run.

        Args:
            folder: Empty.
            reinit: What becomes new.
            mark: Origin of the weights, to store in the arguments.
            advance: Called with bytes read.

        Raises:
            NCAError: The model or the vocabulary cannot be treated.
        """
        if reinit.vocabulary is not None:
            check_vocabulary(reinit.vocabulary, self.tensor_parallel)
        reinit.check({key for _, _, model in self._models() for key in model})
        first_layers = self._first_layers() if reinit.reinitializes_layers else {}
        written = WriteResult()
        for rank in self._ranks:
            state = _read(rank.path)
            for chunk, model in _chunks(state).items():
                self._reinitialize(model, rank, first_layers.get((chunk, rank.pipeline), 0), reinit, written)
            restart(state["args"], reinit.vocabulary, mark)
            target = folder / rank.path.parent.name
            target.mkdir()
            torch.save(without_run_state(state), target / RANK_FILE, pickle_module=pickling)
            advance(rank.path.stat().st_size)
        return written

    def _find_ranks(self) -> list[_Rank]:
        ranks = []
        for path in sorted(self.folder.glob(f"mp_rank_*/{RANK_FILE}")):
            found = RANK.match(path.parent.name)
            if found is None:
                raise NCAError(f"{path.parent}: is no rank's folder; its name should be as mp_rank_00, mp_rank_00_001")
            # With one number more, it is the pipeline's where there is one, else the experts'.
            pipeline = int(found[2]) if found[2] and self.pipeline_parallel > 1 else 0
            ranks.append(_Rank(path, int(found[1]), pipeline))
        present = {(rank.tensor, rank.pipeline) for rank in ranks}
        for tensor in range(self.tensor_parallel):
            for pipeline in range(self.pipeline_parallel):
                if (tensor, pipeline) not in present:
                    raise NCAError(
                        f"{self.folder}: the file of tensor-parallel rank {tensor}, pipeline stage {pipeline} is missing, of "
                        f"{self.tensor_parallel} ranks and {self.pipeline_parallel} stages that the checkpoint was written with"
                    )
        return ranks

    def _models(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield (chunk, pipeline stage, model) of one tensor-parallel rank."""
        for rank in self._ranks:
            if rank.tensor == 0:
                for chunk, model in _chunks(_read(rank.path)).items():
                    yield chunk, rank.pipeline, model

    def _first_layers(self) -> dict[tuple[int, int], int]:
        """Count the layers before each (chunk, pipeline stage): a chunk of all stages comes before the next chunk of any."""
        counts = {}
        for chunk, stage, model in self._models():
            places = [int(found[1]) for key in model if (found := LAYER.match(key)) and found[1] is not None]
            counts[chunk, stage] = max(places, default=-1) + 1
        first, before = {}, 0
        for place in sorted(counts):
            first[place] = before
            before += counts[place]
        return first

    def _reinitialize(
        self, model: dict[str, Any], rank: _Rank, first_layer: int, reinit: ReinitSpec, written: WriteResult
    ) -> None:
        for key, value in model.items():
            if scaling.is_extra_state(key):
                cleared = scaling.cleared(value)
                if cleared is not None:
                    model[key] = cleared
                    written.scaling_states += rank.tensor == 0
            elif isinstance(value, torch.Tensor):
                model[key] = self._reinitialized(key, value, rank, first_layer, reinit, written)
            elif isinstance(value, (pickling.UnimportedObject, pickling.DeferredCall)) and reinit.covers(key):
                raise NCAError(
                    f"{key}: is kept quantized, as --fp8-param-gather does, and cannot be drawn anew in the format torch; save "
                    "the checkpoint with --ckpt-format torch_dist, which keeps plain weights, or leave its part out"
                )

    def _reinitialized(
        self, key: str, value: torch.Tensor, rank: _Rank, first_layer: int, reinit: ReinitSpec, written: WriteResult
    ) -> torch.Tensor:
        embedding = reinit.embedding(key)
        if embedding is not None:
            vocabulary = reinit.vocabulary or value.shape[0] * self.tensor_parallel
            rows, whole = vocabulary // self.tensor_parallel, (vocabulary, *value.shape[1:])
            written.reinitialized[key] = whole
            return reinit.rows(embedding, whole, rank.tensor * rows, rows).to(value.dtype)
        name, weight = self._layer_weight(key, value, first_layer, reinit)
        if weight is None:
            return _alone(value)
        drawn, whole = self._part(name, weight, value, rank, reinit)
        written.reinitialized[key if first_layer == 0 else f"{key} (after {first_layer} layers)"] = whole
        return drawn.to(value.dtype)

    def _layer_weight(
        self, key: str, value: torch.Tensor, first_layer: int, reinit: ReinitSpec
    ) -> tuple[str, NewWeight | None]:
        found = LAYER.match(key)
        if found is None or found[1] is None:
            return key, reinit.final_norm(key)
        return found[2], reinit.layer(first_layer + int(found[1]) + 1, found[2], value.ndim)

    def _part(
        self, name: str, weight: NewWeight, value: torch.Tensor, rank: _Rank, reinit: ReinitSpec
    ) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Draw what a rank holds of a layer's parameter."""
        shape, size = list(value.shape), self.tensor_parallel
        if value.ndim == 1 or size == 1:
            # Biases and norms are constant, so a part of one is drawn like all of it.
            return reinit.full(weight, shape), tuple(shape)
        layer = name.split(".")[-2]
        if layer not in PARTITIONED:
            raise NCAError(
                f"reinit: how the {size} tensor-parallel ranks share {name} cannot be told from files of the format torch; "
                "save the checkpoint with --ckpt-format torch_dist first, or give embeddings or none"
            )
        dim = PARTITIONED[layer]
        shape[dim] *= size
        gated = layer == "linear_fc1" and (getattr(self.args, "swiglu", False) or getattr(self.args, "quick_geglu", False))
        return weights.shard(reinit.full(weight, shape), dim, rank.tensor, size, 2 if gated else 1), tuple(shape)


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=False, pickle_module=pickling)
    except Exception as error:
        raise NCAError(f"{path}: cannot be read as a file of torch.save, so it is damaged or not complete ({error})") from error
    if not isinstance(state, dict):
        raise NCAError(f"{path}: holds a {type(state).__name__}; a checkpoint of Megatron-LM is a dict")
    return state


def _chunks(state: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the models in a file: one, or one a chunk of an interleaved pipeline."""
    found = {int(match[1] or 0): value for key, value in state.items() if (match := CHUNK.match(key))}
    return {chunk: found[chunk] for chunk in sorted(found)}


def _alone(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose storage is its own: views of a whole gradient buffer would each drag it along."""
    return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
