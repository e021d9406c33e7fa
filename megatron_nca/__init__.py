"""Pre-pre-training on neural cellular automata as one more entry of a Megatron-Core data path.

Call ``register()`` once, before datasets are built; then ``nca:`` entries are understood wherever Megatron-Core takes a
dataset prefix.
"""

from typing import TYPE_CHECKING, Any

from megatron_nca.automaton import NCAConfig, NCASource

if TYPE_CHECKING:
    from megatron_nca.training.run import CurriculumRun

__version__ = "0.1.0"
__all__ = ["CurriculumRun", "NCAConfig", "NCASource", "register"]


def register() -> "CurriculumRun":
    """Teach Megatron-Core's dataset builder the ``nca:`` entry, and the training loop the switch to text.

    The loop is Megatron-LM's, or Megatron-Bridge's once a script imports it; NeMo's brings its data module. A loop of one's own
    calls the run that this returns.

    Returns:
        The run of this process; a second call returns the same one and changes nothing.

    Raises:
        EnvironmentMismatchError: This Megatron is not one that megatron-nca knows.
    """
    # Megatron-Core brings torch along; whoever only generates data should not wait for it.
    from megatron_nca.frameworks import registration

    return registration.register()


def __getattr__(name: str) -> Any:
    if name == "CurriculumRun":
        from megatron_nca.training.run import CurriculumRun

        return CurriculumRun
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
