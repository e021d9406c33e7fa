"""Modules with the state of Transformer Engine's delayed scaling, without Transformer Engine; tests/te has the real ones."""

import sys
from types import SimpleNamespace

import pytest
import torch

from megatron_nca.training import fp8


def scaling(history=True, seen=True):
    state = SimpleNamespace(scale=torch.tensor([64.0, 8.0]))
    if history:
        state.amax_history = torch.rand(16, 2) if seen else torch.zeros(16, 2)
    return state


class Linear(torch.nn.Module):
    def __init__(self, **directions):
        super().__init__()
        self.fp8_meta = {"recipe": object(), **directions}


class Operation(torch.nn.Module):
    """As of te.ops: a meta for each direction, or None before it has run."""

    def __init__(self, forward, backward=None):
        super().__init__()
        self._fp8_metas = {"forward": {"scaling_fwd": forward}, "backward": backward and {"scaling_bwd": backward}}


@pytest.fixture
def lists(monkeypatch):
    """The lists that the reduction over ranks walks."""

    def hold(*states):
        manager = SimpleNamespace(global_amax_history_buffer={"forward": [state.amax_history for state in states]})
        module = SimpleNamespace(FP8GlobalStateManager=SimpleNamespace(quantization_state=manager))
        monkeypatch.setitem(sys.modules, fp8.MANAGERS[0], module)

    return hold


def test_delayed_scaling_forgets_what_it_has_seen_in_place_and_keeps_its_scales():
    forward, backward = scaling(), scaling()
    histories = [state.amax_history for state in (forward, backward)]
    model = torch.nn.Sequential(Linear(scaling_fwd=forward, scaling_bwd=backward), torch.nn.Linear(2, 2))
    assert fp8.clear_histories([model]) == fp8.ClearedHistories(histories=2)
    for state, history in zip((forward, backward), histories, strict=True):
        assert state.amax_history is history
        assert not history.any()
        assert state.scale.tolist() == [64, 8]


def test_operations_of_the_fuser_are_reached():
    assert fp8.clear_histories([torch.nn.Sequential(Operation(scaling(), scaling()), Operation(scaling()))]).histories == 3


def test_a_module_kept_out_of_torch_s_sight_is_reached():
    mlp = torch.nn.Module()
    mlp._fused_impl = (torch.nn.Sequential(Operation(scaling())),)
    assert len(list(mlp.modules())) == 1
    assert fp8.clear_histories([torch.nn.Sequential(mlp)]).histories == 1


def test_a_history_that_has_seen_nothing_is_not_counted():
    model = Linear(scaling_fwd=scaling(), scaling_bwd=scaling(seen=False))
    assert fp8.clear_histories([model]).histories == 1


def test_scaling_without_a_history_has_nothing_to_forget():
    model = Linear(scaling_fwd=scaling(history=False))
    assert str(fp8.clear_histories([model])) == "no FP8 history to clear"
    assert model.fp8_meta["scaling_fwd"].scale.tolist() == [64, 8]


def test_a_module_that_has_not_run_in_fp8_is_passed_over():
    assert fp8.clear_histories([Linear(), torch.nn.Linear(2, 2)]) == fp8.ClearedHistories()


def test_every_chunk_is_reached():
    chunks = [Linear(scaling_fwd=scaling()), Linear(scaling_bwd=scaling())]
    assert str(fp8.clear_histories(chunks)) == "2 FP8 histories cleared, scales kept"


def test_a_module_in_two_places_is_counted_once():
    shared = Linear(scaling_fwd=scaling())
    assert fp8.clear_histories([torch.nn.Sequential(shared, shared), shared]).histories == 1


def test_what_transformer_engine_lists_and_no_module_holds_is_cleared_and_told(lists):
    own, other = scaling(), scaling()
    lists(own, other)
    cleared = fp8.clear_histories([Linear(scaling_fwd=own)])
    assert cleared == fp8.ClearedHistories(histories=2, elsewhere=1)
    assert not other.amax_history.any()
    assert "warning: 1 of them belong to no module" in str(cleared)


def test_lists_that_name_the_model_s_own_histories_say_nothing_new(lists):
    own = scaling()
    lists(own)
    assert fp8.clear_histories([Linear(scaling_fwd=own)]) == fp8.ClearedHistories(histories=1)
