"""What Megatron-Bridge's configs say of data and model."""

from __future__ import annotations

from megatron_nca.data.curriculum import Blend
from megatron_nca.interfaces.bridge import DatasetConfig, ModelProvider


def blends_of(dataset: DatasetConfig) -> tuple[Blend | None, ...]:
    """Return the train, validation and test data of a dataset config, as Megatron's (prefixes, weights)."""
    if not hasattr(dataset, "blend"):
        return (None, None, None)
    per_split = dataset.blend_per_split
    return tuple(per_split) if per_split else (shared_blend(dataset),) * 3


def shared_blend(dataset: DatasetConfig) -> Blend | None:
    """Return the blend that Bridge would read, which since 0.4 may be written as a data path."""
    from megatron.core.datasets.utils import get_blend_from_list

    path = getattr(dataset, "data_path", None)
    if dataset.blend is not None or not path:
        return dataset.blend
    blend: Blend | None = get_blend_from_list(path.split() if isinstance(path, str) else list(path))
    return blend


def padded_vocab_size(model: ModelProvider) -> int | None:
    """Return the rows of a model's embedding, which Bridge pads when it builds the model."""
    vocab_size = getattr(model, "vocab_size", None)
    if vocab_size is None or not getattr(model, "should_pad_vocab", False):
        return vocab_size
    multiple = model.make_vocab_size_divisible_by * model.tensor_model_parallel_size
    return int(-(-vocab_size // multiple) * multiple)
