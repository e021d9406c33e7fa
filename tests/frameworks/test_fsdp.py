"""Weights and moments sharded by Megatron-FSDP, from NCA to text, with the losses of the distributed optimizer."""

import pytest

from megatron_nca.rehearsal.megatron_lm import Run
from tests.frameworks.test_megatron_lm import ENTRY, EXACT, our_lines, with_flags

pytestmark = pytest.mark.slow

ITERATIONS, SWITCH = 16, 10
CLOSE = 1e-4
STRATEGIES = {"ZeRO 1": "optim", "ZeRO 2": "optim_grads", "ZeRO 3": "optim_grads_params"}


@pytest.fixture
def run(checkout, corpus):
    if checkout.version < (0, 16, 0):
        pytest.skip("Megatron-FSDP as it is since Megatron-Core 0.16")
    flags = ("--data-path", ENTRY, str(corpus), "--train-iters", str(ITERATIONS), "--eval-iters", "0", *EXACT)
    # FSDP refuses the one connection that others ask for.
    environment = {"CUDA_DEVICE_MAX_CONNECTIONS": "8"}
    whole = (*flags, "--use-distributed-optimizer", "--untie-embeddings-and-output-weights")
    return Run(checkout, whole, data_parallel=2, environment=environment)


@pytest.fixture(scope="module")
def expected():
    return {}


@pytest.fixture
def reference(run, expected, tmp_path_factory):
    if run.checkout not in expected:
        expected[run.checkout] = run.complete(tmp_path_factory.mktemp("distributed")).losses
    return expected[run.checkout]


def sharded(run, strategy):
    return with_flags(
        run, "--use-megatron-fsdp", "--data-parallel-sharding-strategy", strategy, "--ckpt-format", "fsdp_dtensor"
    )


def assert_close(losses, reference):
    assert losses == pytest.approx({n: reference.get(n, loss) for n, loss in losses.items()}, abs=CLOSE)
    assert max(losses) == ITERATIONS


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_the_losses_are_those_of_the_distributed_optimizer(run, reference, strategy, tmp_path):
    log = sharded(run, strategy).complete(tmp_path)
    assert_close(log.losses, reference)
    assert "reinitialised embeddings (2 weights)" in our_lines((tmp_path / "rank0.log").read_text())[-1]


def test_a_run_resumed_on_either_side_of_the_switch_goes_on_with_the_same_losses(run, reference, tmp_path):
    checkpoint = str(tmp_path / "checkpoint")
    first = with_flags(sharded(run, STRATEGIES["ZeRO 3"]), "--save", checkpoint, "--save-interval", "50")
    # Not before: looking for a checkpoint of this format, Megatron takes a step of the optimizer, found or not.
    kept = with_flags(first, "--load", checkpoint)
    seen = {}
    for stop in (SWITCH - 4, SWITCH, SWITCH + 3):
        exiting = with_flags(kept if seen else first, "--exit-interval", str(stop))
        seen |= exiting.complete(tmp_path / f"until{stop}").losses
    last = kept.complete(tmp_path / "last").losses
    assert_close(seen | last, reference)
    assert min(last) == SWITCH + 4


def test_every_part_is_drawn_anew_in_half_precision(run, tmp_path):
    parts = ("--bf16", "--nca-reinit", "embeddings,attention,mlp,norms")
    plain = with_flags(run, *parts).complete(tmp_path / "plain").losses
    log = sharded(with_flags(run, *parts), STRATEGIES["ZeRO 3"]).complete(tmp_path / "sharded")
    assert log.losses[SWITCH + 1] == pytest.approx(plain[SWITCH + 1], abs=2e-3)
