"""``register()``: the builder's hook around one run, and the adapters that can be had."""

from __future__ import annotations

from megatron_nca import refusing
from megatron_nca.data import hook
from megatron_nca.frameworks import bridge_launch, megatron_lm, seams
from megatron_nca.patching import is_importable, owner_of
from megatron_nca.stacks import CORE
from megatron_nca.training.run import CurriculumRun


def register() -> CurriculumRun:
    """Install the hook and the adapters; a second call returns the first one's run.

    Raises:
        EnvironmentMismatchError: This Megatron is not one that megatron-nca knows.
    """
    refusing.install()
    builder = hook.builder_class()
    run: CurriculumRun = owner_of(builder, "build") or CurriculumRun()
    core = {"BlendedMegatronDatasetBuilder.build": hook.with_curriculum(run), "get_blend_from_list": hook.with_words}
    seams.install(CORE.name, core, run)
    if is_importable("megatron.training"):
        seams.install(megatron_lm.STACK.name, megatron_lm.wrappers(run), run)
    seams.install_on_import(bridge_launch.STACK.name, bridge_launch.wrappers(run), run)
    return run
