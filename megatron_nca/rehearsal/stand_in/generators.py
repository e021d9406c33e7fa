"""The device's random numbers, apart from the host's.

On a machine with a GPU there are two streams of random numbers. Dropout and initialisation draw from the device's, data
loading from the host's, and Megatron saves both in its checkpoints. PyTorch's CPU operators draw from one generator only, so
here that generator plays two roles: the device's everywhere, and the host's while a data loader is at work. The state of the
role that is not being played is kept aside. Without the separation, a resumed run, which builds its data loaders once more,
would draw other dropout masks than the run it continues.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import dataloader

from megatron_nca.rehearsal.stand_in import queries
from megatron_nca.rehearsal.stand_in.replacing import replace


class GeneratorRoles:
    """The two streams of random numbers that one generator plays.

    Args:
        generator: The generator that CPU operators draw from.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._playing = "device"
        self._states = {"device": generator.get_state(), "host": generator.get_state()}
        self._seeds = {"device": generator.initial_seed(), "host": generator.initial_seed()}

    def get_state(self, role: str) -> torch.Tensor:
        """Return the state of a role's stream: uint8, of the CPU generator's size."""
        if role == self._playing:
            return self._generator.get_state()
        return self._states[role].clone()

    def set_state(self, role: str, state: torch.Tensor) -> None:
        """Continue a role's stream from a state."""
        if role == self._playing:
            self._generator.set_state(state)
        else:
            self._states[role] = state.clone()

    def seed(self, role: str, seed: int) -> None:
        """Start a role's stream anew."""
        self._seeds[role] = seed
        self.set_state(role, torch.Generator().manual_seed(seed).get_state())

    def initial_seed(self, role: str) -> int:
        """Return the seed that a role's stream was started with."""
        return self._seeds[role]

    @contextmanager
    def play_host(self) -> Iterator[None]:
        """Draw from the host's stream inside the context."""
        before = self._playing
        self._play("host")
        try:
            yield
        finally:
            self._play(before)

    def _play(self, role: str) -> None:
        if role == self._playing:
            return
        self._states[self._playing] = self._generator.get_state()
        self._generator.set_state(self._states[role])
        self._playing = role


def install() -> None:
    """Replace `torch`'s and `torch.cuda`'s access to generators."""
    roles = GeneratorRoles(torch.default_generator)
    _install_host(roles)
    _install_device(roles)
    _install_data_loader(roles)


def _install_host(roles: GeneratorRoles) -> None:
    def manual_seed(seed: int) -> torch.Generator:
        roles.seed("host", int(seed))
        roles.seed("device", int(seed))
        return torch.default_generator

    replace(
        torch,
        torch.random,
        manual_seed=manual_seed,
        get_rng_state=functools.partial(roles.get_state, "host"),
        set_rng_state=functools.partial(roles.set_state, "host"),
        initial_seed=functools.partial(roles.initial_seed, "host"),
    )


def _install_device(roles: GeneratorRoles) -> None:
    def get_rng_state(device: Any = "cuda") -> torch.Tensor:
        return roles.get_state("device")

    def set_rng_state(new_state: torch.Tensor, device: Any = "cuda") -> None:
        roles.set_state("device", new_state)

    def manual_seed(seed: int) -> None:
        roles.seed("device", int(seed))

    replace(
        torch.cuda,
        torch.cuda.random,
        get_rng_state=get_rng_state,
        set_rng_state=set_rng_state,
        manual_seed=manual_seed,
        manual_seed_all=manual_seed,
        initial_seed=functools.partial(roles.initial_seed, "device"),
    )
    replace(torch.cuda, default_generators=(torch.default_generator,) * queries.device_count())


def _install_data_loader(roles: GeneratorRoles) -> None:
    def on_host(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def draw(*args: Any, **kwargs: Any) -> Any:
            with roles.play_host():
                return method(*args, **kwargs)

        return draw

    iterator = dataloader._BaseDataLoaderIter
    replace(iterator, __next__=on_host(iterator.__next__))
    replace(dataloader.DataLoader, __iter__=on_host(dataloader.DataLoader.__iter__))
