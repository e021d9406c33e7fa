"""Runs `pretrain_gpt.py` and writes down, for every training sample that is read, its position and a digest of its tokens.

python -m megatron_nca.rehearsal tests/frameworks/reading.py ARGUMENTS     PRETRAIN names the script, READ the file
"""

import hashlib
import os
import runpy
import sys
from typing import Any

from megatron.core.datasets.gpt_dataset import GPTDataset
from megatron.core.datasets.utils import Split

from megatron_nca.data.scheduled_dataset import PlainBlend, ScheduledDataset


def note(*words: object) -> None:
    """Write a line; several ranks write to one file."""
    with open(os.environ["READ"], "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def digest(sample: Any) -> str:
    """Return a digest of a sample's tokens."""
    return hashlib.sha256(sample["tokens"].numpy().tobytes()).hexdigest()[:16]


def watch(kind: Any, name: str, *info: str) -> None:
    """Note what a kind of dataset gives in training."""
    original = kind.__getitem__

    def read(self: Any, idx: int) -> Any:
        sample = original(self, idx)
        if idx is not None and self.split is Split.train:
            note(name, idx, digest(sample), *(getattr(self, fact) for fact in info))
        return sample

    kind.__getitem__ = read


for top in (ScheduledDataset, PlainBlend):
    watch(top, "position")
GPTDataset.split = property(lambda self: self.index_split)
watch(GPTDataset, "text", "num_samples", "dataset_path")
script = os.environ["PRETRAIN"]
sys.argv[0] = script
sys.path.insert(0, os.path.dirname(script))
runpy.run_path(script, run_name="__main__")
