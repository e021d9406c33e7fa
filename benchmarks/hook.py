"""What the hook adds to a training step: the adapter's wrapper around a step that does nothing, beside that step alone.

The scalars and the report of losses are not in it: they are made at Megatron's ``--tensorboard-log-interval`` and
``--log-interval``, and cost what its writer costs.
"""

from __future__ import annotations

import timeit
from types import SimpleNamespace

from megatron.core import num_microbatches_calculator

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.data.run import Datasets
from megatron_nca.frameworks.megatron_lm import MegatronLM
from megatron_nca.training.options import Options
from megatron_nca.training.run import CurriculumRun
from megatron_nca.training.run_info import RunInfo

CALLS = 100_000
ROUNDS = 7


def _step(*_args: object) -> None:
    """Train nothing."""


def hooked(phase: str) -> MegatronLM:
    """Return an adapter that is past its first step, in a phase of NCA or behind the switch."""
    plan = plan_training(read_blend((("nca:tokens=164M", "/text"), None)), 1024, 10**7, BatchBoundaries(512))
    run = CurriculumRun()
    adapter = MegatronLM(run)
    adapter._args = SimpleNamespace(
        consumed_train_samples=512, curr_iteration=1, tensorboard_log_interval=10**9, log_interval=10**9
    )
    adapter.info = lambda: RunInfo(replays_steps=True)  # type: ignore[method-assign]
    adapter.report = lambda line: None  # type: ignore[method-assign]
    run.attach(adapter)
    run.validate(Options(reinit=(), optimizer="keep", lr_at_switch="continue"))
    run.begin(plan, Datasets(None, 1234))
    run.before_step(0 if phase == "nca" else plan.switch or 0, [], None, None)
    return adapter


def microseconds(step: object) -> float:
    """Return the time of one call, in microseconds, of the fastest round."""
    timer = timeit.Timer(lambda: step(None, None, None, None, None))  # type: ignore[operator]
    return min(timer.repeat(ROUNDS, CALLS)) / CALLS * 1e6


def main() -> None:
    """Print the table."""
    num_microbatches_calculator.init_num_microbatches_calculator(0, None, 512, 1, 8)
    print("| step | µs | added, µs |\n|---|---:|---:|")
    alone = microseconds(_step)
    print(f"| alone | {alone:.2f} | 0.00 |")
    for phase in ("nca", "text"):
        with_hook = microseconds(hooked(phase).around_train_step(_step))
        print(f"| with the hook, in the {phase} phase | {with_hook:.2f} | {with_hook - alone:.2f} |")


if __name__ == "__main__":
    main()
