"""What Bridge alone can meet: a callback of the script's, and a train state whose record lost bytes."""

import copy
import importlib

import pytest
import torch

from megatron_nca.errors import CurriculumError, NCAError
from tests.contract.drivers import Bridge
from tests.contract.machine import ENTRY, Launch


@pytest.fixture
def bridge(one_rank, tmp_path):
    return Bridge(tmp_path)


@pytest.fixture
def callback(bridge):
    """Make the callback of a script."""
    return importlib.import_module("megatron_nca.frameworks.megatron_bridge").NCACallback


@pytest.fixture
def from_script(bridge, monkeypatch):
    """Have the script give callbacks to ``pretrain``."""

    def give(*callbacks):
        normalize = bridge.callbacks.normalize_callbacks
        monkeypatch.setattr(bridge.callbacks, "normalize_callbacks", lambda _: normalize(list(callbacks)))

    return give


def test_a_callbacks_options_are_the_runs(bridge, callback, from_script, text):
    from_script(callback(lr_at_switch="continue", reinit="none"))
    outcome = bridge.launch(Launch((ENTRY, text)))
    assert outcome.error is None
    assert outcome.says("reinitialised nothing, optimizer fresh, learning rate continue")


def test_options_of_a_callback_and_of_overrides_together_are_refused(bridge, callback, from_script, text):
    from_script(callback(lr=1e-4))
    refused = bridge.launch(Launch((ENTRY, text), options={"lr": 2e-4}))
    assert isinstance(refused.error, NCAError)
    assert "the script has an NCACallback with options of its own; give one or the other" in str(refused.error)


def test_a_wrong_option_of_a_callback_is_refused_when_it_is_made(callback):
    with pytest.raises(NCAError, match=r"there is no such option; Megatron-Bridge takes nca\.reinit"):
        callback(rate=1e-4)


@pytest.mark.parametrize("spoil", [lambda record: record[:-9], lambda record: record * 0, lambda record: record.float()])
def test_a_record_that_lost_bytes_is_refused_by_name(bridge, text, spoil):
    launch = Launch((ENTRY, text))
    saved = bridge.launch(launch, until=5, save_at=(5,)).checkpoints[5]
    damaged = copy.deepcopy(saved)
    damaged.stacks_own["nca_curriculum"] = spoil(saved.stacks_own["nca_curriculum"])
    refused = bridge.launch(launch, checkpoint=damaged)
    assert isinstance(refused.error, CurriculumError)
    assert "the checkpoint's record of its curriculum is damaged" in str(refused.error)
    assert not refused.samples


def test_a_checkpoint_from_before_the_record_loads(bridge, text):
    state = bridge.state.TrainState()
    state.load_state_dict({name: torch.tensor(value) for name, value in vars(bridge.state.TrainState()).items()})
    assert not hasattr(state, "nca_curriculum")
