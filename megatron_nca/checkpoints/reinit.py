"""Which weights of a checkpoint become new, and how each is drawn: as at the switch inside a run, bit for bit."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from megatron_nca.errors import NCAError
from megatron_nca.training import weights
from megatron_nca.training.settings import PARTS
from megatron_nca.training.weights import OUTPUT_LAYER, WORD_EMBEDDINGS, Initializer

LAYER = re.compile(r"^decoder\.layers\.(?:(\d+)\.)?(.+)$")
"""A layer's parameter: its place in the decoder, absent where all layers share one tensor, and its name in the layer."""

FINAL_NORM = re.compile(r"^decoder\.((?:final_layernorm|final_norm)\..+)$")


@dataclass(frozen=True)
class InitMethods:
    """Megatron's init methods, of a checkpoint's arguments instead of a ``TransformerConfig``."""

    init_method: Initializer
    output_layer_init_method: Initializer
    embedding_init_method: Initializer
    layernorm_zero_centered_gamma: bool
    use_mup: bool

    @classmethod
    def from_args(cls, args: Any, std: float | None = None) -> InitMethods:
        """Derive them as ``TransformerConfig`` does.

        Args:
            args: Megatron-LM's arguments.
            std: Standard deviation in place of the arguments' ``init_method_std``, and of the embedding's own.
        """
        own = getattr(args, "embedding_init_method_std", None)
        sigma = args.init_method_std if std is None else std
        embedding_sigma = sigma if std is not None or own is None else own
        mup = bool(getattr(args, "use_mup", False))
        width = args.hidden_size / (getattr(args, "mup_base_hidden_size", None) or args.hidden_size) if mup else 1.0
        hybrid = getattr(args, "is_hybrid_model", False) or getattr(args, "hybrid_layer_pattern", None)
        depth = math.sqrt((1.0 if hybrid else 2.0) * args.num_layers)
        xavier = bool(getattr(args, "init_method_xavier_uniform", False))
        init = torch.nn.init.xavier_uniform_ if xavier else _normal(sigma / math.sqrt(width) if mup else sigma)
        return cls(
            init_method=init,
            output_layer_init_method=_normal(sigma / (depth * math.sqrt(width)) if mup else sigma / depth),
            embedding_init_method=init if xavier and embedding_sigma == sigma else _normal(embedding_sigma),
            layernorm_zero_centered_gamma=bool(getattr(args, "apply_layernorm_1p", False)),
            use_mup=mup,
        )


def _normal(std: float) -> Initializer:
    return functools.partial(torch.nn.init.normal_, mean=0.0, std=std)


@dataclass(frozen=True)
class NewWeight:
    """A parameter that is drawn anew.

    Attributes:
        name: Name that its values depend on, beside the seed.
        initializer: Its init method.
    """

    name: str
    initializer: Initializer

    @property
    def is_embedding(self) -> bool:
        """Whether its rows are the vocabulary's."""
        return self.name in (WORD_EMBEDDINGS, OUTPUT_LAYER)


@dataclass(frozen=True)
class ReinitSpec:
    """What becomes new in one checkpoint.

    Attributes:
        parts: Parts to draw anew, each one of ``PARTS``.
        seed: Seed of the new weights.
        init: The checkpoint's init methods.
        tied: Whether input and output share their embedding.
        vocabulary: Rows of the new embeddings, or None for as many as before.
    """

    parts: Sequence[str]
    seed: int
    init: InitMethods
    tied: bool
    vocabulary: int | None = None

    @property
    def reinitializes_layers(self) -> bool:
        """Whether anything but embeddings is asked for."""
        return any(part in self.parts for part in PARTS[1:])

    def check(self, keys: Iterable[str]) -> None:
        """Refuse a model that cannot be treated.

        Args:
            keys: Parameter names of the whole model, all ranks' together.

        Raises:
            NCAError: There is no embedding, or a part cannot be drawn without building the model.
        """
        known = set(keys)
        if "embeddings" in self.parts:
            if not any(_embedding_name(key, self.tied) == WORD_EMBEDDINGS for key in known):
                raise NCAError(_missing("embedding.word_embeddings.weight", known))
            if not self.tied and not any(_embedding_name(key, False) == OUTPUT_LAYER for key in known):
                raise NCAError(_missing("output_layer.weight", known))
        if self.reinitializes_layers and any(key.startswith("mtp.") for key in known):
            raise NCAError(
                "reinit: layers of a model with multi-token prediction cannot be drawn anew in a checkpoint; give embeddings "
                "or none, or switch inside one run, with --nca-reinit"
            )
        if "mlp" in self.parts and any(".experts." in key for key in known):
            raise NCAError("reinit: mlp of a mixture of experts cannot be drawn anew; leave mlp out of the parts")

    def covers(self, key: str) -> bool:
        """Tell whether a parameter belongs to a part that becomes new."""
        if _embedding_name(key, self.tied) is not None:
            return "embeddings" in self.parts
        found = LAYER.match(key)
        return found is not None and weights.part_of(found[2]) in self.parts

    def embedding(self, key: str) -> NewWeight | None:
        """Return how to draw an embedding; None for any other parameter, and where embeddings are kept."""
        name = _embedding_name(key, self.tied) if "embeddings" in self.parts else None
        if name is None:
            return None
        own = name == OUTPUT_LAYER
        return NewWeight(name, weights.output_initializer(self.init) if own else self.init.embedding_init_method)

    def layer(self, number: int, name: str, dimensions: int) -> NewWeight | None:
        """Return how to draw a layer's parameter, or None where it is kept.

        Args:
            number: Number of the layer, from 1 over the whole model.
            name: Name of the parameter inside the layer.
            dimensions: Number of dimensions of one layer's parameter.
        """
        if weights.part_of(name) not in self.parts:
            return None
        return NewWeight(weights.layer_name(number, name), weights.layer_initializer(name, dimensions, self.init))

    def final_norm(self, key: str) -> NewWeight | None:
        """Return how to draw a parameter of the norm after the last layer, or None."""
        found = FINAL_NORM.match(key)
        if found is None or "norms" not in self.parts:
            return None
        return NewWeight(found[1], weights.norm_initializer(found[1], self.init))

    def rows(self, weight: NewWeight, shape: Sequence[int], first: int, rows: int) -> torch.Tensor:
        """Draw rows ``first`` onwards of an embedding of so many rows and columns; float32."""
        return weights.draw_rows(weight.name, weight.initializer, shape, self.seed, first, rows)

    def full(self, weight: NewWeight, shape: Sequence[int]) -> torch.Tensor:
        """Draw a whole parameter; float32."""
        return weights.draw(weight.name, weight.initializer, shape, self.seed)


def _embedding_name(key: str, tied: bool) -> str | None:
    if key.endswith("word_embeddings.weight"):
        return WORD_EMBEDDINGS
    if key == "output_layer.weight":
        # The last pipeline stage's copy where it is tied.
        return WORD_EMBEDDINGS if tied else OUTPUT_LAYER
    return None


def _missing(key: str, known: set[str]) -> str:
    shown = ", ".join(sorted(known)[:3]) or "none"
    return (
        f"the checkpoint has no {key} to draw anew; transfer knows Megatron-Core's GPT and hybrid models, whose parameters are "
        f"named so. Its first of {len(known)} parameters: {shown}"
    )
