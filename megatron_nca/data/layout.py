"""How trajectories fill a training sequence, and which of its labels carry loss.

A sequence no longer than ``trajectory`` is one trajectory, cut where the sequence ends. A longer one packs several, each
``trajectory`` tokens with the EOD that ends it. Every sequence starts a trajectory of its own, so a sample is a pure function
of its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_nca.automaton.config import NCAConfig


@dataclass(frozen=True)
class SampleLayout:
    """Where documents lie in samples.

    Attributes:
        sequence_length: Labels of a sample.
        extra_token: Whether a sample reads one token more than that, to have a label for its last input.
        trajectory: Tokens of a packed document, its EOD included.
    """

    sequence_length: int
    extra_token: bool
    trajectory: int

    @property
    def ends_with_eod(self) -> bool:
        """Whether documents are packed and so end with an EOD."""
        return self.sequence_length > self.trajectory

    @property
    def document_length(self) -> int:
        """Tokens of a document."""
        return self.trajectory if self.ends_with_eod else self.sequence_length + self.extra_token

    @property
    def documents_per_sample(self) -> int:
        """Documents that begin in a sample, the one of its extra label aside."""
        return -(-self.sequence_length // self.trajectory)

    def begin(self, sample: int) -> tuple[int, int]:
        """Return (document, offset) of a sample's first token."""
        return sample * self.documents_per_sample, 0

    def end(self, sample: int) -> tuple[int, int]:
        """Return (document, offset) of a sample's last label, or of its last token where it has no extra one."""
        document, offset = divmod(self.sequence_length, self.trajectory) if self.ends_with_eod else (0, self.sequence_length)
        if offset == 0 and not self.extra_token:
            document, offset = document - 1, self.trajectory
        return sample * self.documents_per_sample + document, offset

    def trained_labels(self, config: NCAConfig, loss: str) -> npt.NDArray[np.float32]:
        """Tell which labels of a sample carry loss.

        Args:
            config: Gives the length of a frame.
            loss: ``all``; ``frames``, none inside a trajectory's first frame; ``patches``, nor on delimiters and EOD.

        Returns:
            float32 (sequence_length,), 0 or 1.
        """
        token, is_patch = self._labels(config)
        trained = np.ones(self.sequence_length, dtype=bool)
        if loss != "all":
            trained &= token >= config.frame_length
        if loss == "patches":
            trained &= is_patch
        return trained.astype(np.float32)

    def frames_seen(self, config: NCAConfig) -> npt.NDArray[np.int64]:
        """Tell how many whole frames of its trajectory precede each label of a sample.

        Args:
            config: Gives the length of a frame.

        Returns:
            int64 (sequence_length,), -1 for a label that is no patch.
        """
        token, is_patch = self._labels(config)
        return np.where(is_patch, token // config.frame_length, -1)

    def _labels(self, config: NCAConfig) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return each label's place in its document, and whether it is a patch: no delimiter, no EOD."""
        token = np.arange(1, self.sequence_length + 1) % self.document_length
        is_eod = (token == self.document_length - 1) & self.ends_with_eod
        in_frame = token % config.frame_length
        return token, (in_frame != 0) & (in_frame != config.frame_length - 1) & ~is_eod
