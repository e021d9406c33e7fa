"""The process: random neural cellular automata as token sequences. Knows numpy and numba; not torch, not Megatron."""

from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.source import NCASource

__all__ = ["NCAConfig", "NCASource"]
