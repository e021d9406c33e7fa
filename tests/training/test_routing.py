import torch

from megatron_nca.training import routing


class Router(torch.nn.Module):
    def __init__(self, frozen=False):
        super().__init__()
        self.register_buffer("expert_bias", torch.ones(4))
        self.register_buffer("local_tokens_per_expert", torch.full((4,), 7.0))
        self.frozen_expert_bias = frozen


class Plain(torch.nn.Module):
    expert_bias = None


def test_biases_and_counts_are_zeroed_where_they_are():
    router = Router()
    places = [buffer.data_ptr() for buffer in router.buffers()]
    assert routing.reset_biases([torch.nn.ModuleList([router, Plain()])]) == 1
    assert not any(buffer.any() for buffer in router.buffers())
    assert [buffer.data_ptr() for buffer in router.buffers()] == places


def test_a_frozen_bias_is_kept():
    router = Router(frozen=True)
    assert routing.reset_biases([router]) == 0
    assert router.expert_bias.all()
