"""A module with the state of Transformer Engine's delayed scaling, without Transformer Engine."""

from types import SimpleNamespace

import torch

from megatron_nca.training import fp8


def scaling(history=True):
    state = SimpleNamespace(scale=torch.tensor([64.0, 8.0]), scale_inv=torch.tensor([1 / 64, 1 / 8]))
    if history:
        state.amax_history = torch.rand(16, 2)
    return state


class Linear(torch.nn.Module):
    def __init__(self, **directions):
        super().__init__()
        self.fp8_meta = {"recipe": object(), **directions}


def test_delayed_scaling_forgets_what_it_has_seen_in_place():
    forward, backward = scaling(), scaling()
    histories = [state.amax_history for state in (forward, backward)]
    model = torch.nn.Sequential(Linear(scaling_fwd=forward, scaling_bwd=backward), torch.nn.Linear(2, 2))
    assert fp8.reset_scaling_state([model]) == 1
    for state, history in zip((forward, backward), histories, strict=True):
        assert state.amax_history is history
        assert not history.any()
        assert state.scale.tolist() == [1, 1]
        assert state.scale_inv.tolist() == [1, 1]


def test_scaling_without_a_history_has_nothing_to_forget():
    model = Linear(scaling_fwd=scaling(history=False))
    assert fp8.reset_scaling_state([model]) == 0
    assert model.fp8_meta["scaling_fwd"].scale.tolist() == [64, 8]


def test_a_module_that_has_not_run_in_fp8_is_passed_over():
    assert fp8.reset_scaling_state([Linear(), torch.nn.Linear(2, 2)]) == 0


def test_every_chunk_is_reached():
    assert fp8.reset_scaling_state([Linear(scaling_fwd=scaling()), Linear(scaling_bwd=scaling())]) == 2
