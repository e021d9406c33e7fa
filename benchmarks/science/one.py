"""One run of the experiment, in a process of its own: `python -m benchmarks.science.one JOB.json FOLDER RESULT.json`."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from examples.quickstart.train import BATCH, Job, train, write_json

PARTS = 20
"""Parts of a run for which a mean training loss is kept."""


def main(job_file: str, folder: str, result_file: str) -> None:
    """Train and write the result; the folder is removed once that is there."""
    job = Job(**json.loads(Path(job_file).read_text(encoding="utf-8")))
    Path(folder).mkdir(parents=True, exist_ok=True)
    found = train(job, Path(folder), carry=carried(job) if job.first.startswith("phase:") else None)
    losses = found.pop("steps")
    part = -(-len(losses) // PARTS)
    job_told = {key: value for key, value in found["job"].items() if key not in ("text", "tokenizer", "name")}
    write_json(Path(result_file), {
        "arm": job.name, "job": job_told, "validations": found["validations"], "nca": found["nca"][-1:],
        "train": [round(sum(losses[at : at + part]) / len(losses[at : at + part]), 4) for at in range(0, len(losses), part)],
        "seconds": round(found["seconds"]), "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "megatron-core", "tokenizers", "megatron-nca")},
    })  # fmt: skip
    shutil.rmtree(folder)


def carried(job: Job) -> Any:
    """Return what carries a run from another text to its own as NCA's is carried: the plugin leaves a change of texts alone."""
    from examples.quickstart.model import FINAL_SHARE, Shape
    from megatron_nca.data.curriculum import read_blend
    from megatron_nca.training.learning_rate import PhaseLearningRate
    from megatron_nca.training.settings import TransitionSettings
    from megatron_nca.training.transition import Transition

    sequence = Shape(**job.shape).sequence
    tokens = sum(stage.tokens or 0 for stage in read_blend(([*job.first.split(), job.text], None)).stages)
    switch = -(-tokens // (BATCH * sequence)) * BATCH
    rates = (job.nca_lr, job.nca_embedding_lr)
    phase = PhaseLearningRate(
        rates[0], rates[0] * FINAL_SHARE, decoupled_peak=rates[1], decoupled_minimum=rates[1] * FINAL_SHARE
    )
    plan: Any = SimpleNamespace(switch=switch, sequence_length=sequence)
    transition = Transition(plan, TransitionSettings(phase_lr=phase), job.seed)
    begun: list[bool] = []

    def carry(consumed: int, model: Any, optimizer: Any, scheduler: Any) -> None:
        if not begun:
            if consumed:
                sys.exit("benchmarks.science: this arm is not gone on with; remove its folder")
            begun.append(True)
            transition.prepare(model, optimizer, scheduler)
        transition.before_step(consumed, model, optimizer, scheduler)

    return carry


if __name__ == "__main__":
    main(*sys.argv[1:4])
