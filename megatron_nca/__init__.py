"""Pre-pre-training on neural cellular automata as one more entry of a Megatron-Core data path.

Call ``register()`` once, before datasets are built; then ``nca:`` entries are understood wherever Megatron-Core takes a
dataset prefix.
"""

from megatron_nca.automaton import NCAConfig, NCASource

__version__ = "0.1.0"
__all__ = ["NCAConfig", "NCASource", "register"]


def register() -> None:
    """Teach Megatron-Core's dataset builder the ``nca:`` entry, and the training loop the switch to text.

    Calling it again changes nothing. The loop is Megatron-LM's, or Megatron-Bridge's once a script imports it. Another loop is
    not known here: there the framework's own adapter, or the script, does the transition.

    Raises:
        EnvironmentMismatchError: This Megatron is not one that megatron-nca knows.
    """
    # Megatron-Core brings torch along; whoever only generates data should not wait for it.
    from megatron_nca.data import hook
    from megatron_nca.frameworks import bridge_launch, megatron_lm

    hook.install()
    if megatron_lm.available():
        megatron_lm.install()
    bridge_launch.install()
