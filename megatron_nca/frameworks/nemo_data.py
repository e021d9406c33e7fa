"""NeMo 2's data: what is replaced in its pre-training data module, so that paths may hold entries."""

from __future__ import annotations

from collections.abc import Callable

import megatron_nca
from megatron_nca.data.curriculum import Blend
from megatron_nca.data.phase_word import is_ours
from megatron_nca.errors import CurriculumError
from megatron_nca.frameworks import seams
from megatron_nca.interfaces.nemo import DataModule, DataSampler
from megatron_nca.patching import T, Wrapper
from megatron_nca.stacks import NEMO
from megatron_nca.training.run import CurriculumRun

STACK = NEMO


def register() -> CurriculumRun:
    """Let ``PreTrainingDataModule`` take ``nca:`` entries; a second call changes nothing."""
    run = megatron_nca.register()
    wrappers: dict[str, Wrapper] = {
        "validate_dataset_asset_accessibility": _let_entries_pass,
        "PreTrainingDataModule.build": _with_boundaries,
        "MegatronDataSampler.compute_consumed_samples": _counting(run),
    }
    seams.install(STACK.name, wrappers, run)
    return run


def _let_entries_pass(validate: Callable[..., object]) -> Callable[..., None]:
    # It looks on one rank alone, and calls itself by its global name for every part of a dict. What stands beside an entry is
    # looked for where the datasets are built, on all ranks together.
    def validate_paths(paths: object) -> None:
        words = paths if isinstance(paths, (list, tuple)) else [paths]
        if not any(isinstance(word, str) and is_ours(word) for word in words):
            validate(paths)

    return validate_paths


def _with_boundaries(build: Callable[..., T]) -> Callable[..., T]:
    """Set Megatron's microbatch calculator up before the datasets are built, since NeMo does so after it."""

    def build_with_boundaries(self: DataModule, *args: object, **keywords: object) -> T:
        if getattr(self, "trainer", None) is None or not _has_entries(self):
            return build(self, *args, **keywords)
        if self.data_sampler.rampup_batch_size is not None:
            raise CurriculumError(
                f"rampup_batch_size={self.data_sampler.rampup_batch_size}: NeMo counts a batch too many after each resume of a "
                "ramp, so no phase could end at its place; leave rampup_batch_size out with nca: entries"
            )
        from megatron.core import num_microbatches_calculator as calculator

        # NeMo's own call, later, accepts a calculator of the same sizes.
        if calculator._GLOBAL_NUM_MICROBATCHES_CALCULATOR is None:
            self.data_sampler.setup(self.trainer.strategy.cluster_environment.global_rank())
        return build(self, *args, **keywords)

    return build_with_boundaries


def _counting(run: CurriculumRun) -> Wrapper:
    """Count the samples of steps whose phases have batches of their own; NeMo multiplies steps by the batch of today."""

    def around(original: Callable[..., int]) -> Callable[..., int]:
        def compute_consumed_samples(self: DataSampler, steps_since_resume: int = 0) -> int:
            counted = int(original(self, steps_since_resume))
            if run.plan is None or not run.plan.batches.phase_batches or not counted:
                return counted
            batches = run.plan.batches
            return batches.position_after(batches.batches_until(int(self.init_consumed_samples)) + int(steps_since_resume))

        return compute_consumed_samples

    return around


def blends_of(data: DataModule) -> list[Blend | None]:
    """Return a data module's train, validation and test data, as Megatron's (prefixes, weights)."""
    per_split = data.build_kwargs.get("blend_per_split")
    return list(per_split) if per_split else [data.build_kwargs.get("blend")] * 3


def _has_entries(data: DataModule) -> bool:
    return any(is_ours(prefix) for blend in blends_of(data) if blend for prefix in blend[0])
