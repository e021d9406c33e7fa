"""Megatron-LM's pretrain_gpt.py in Transformer Engine's layers, through the switch under every FP8 recipe, killed and resumed.

Versions pair as their releases did: Megatron-LM 0.16 with Transformer Engine 2.11, 0.19 and main with 2.17.1 and later.
"""

from dataclasses import replace

import pytest

from megatron_nca.rehearsal.extension import loading, machine
from megatron_nca.rehearsal.megatron_lm import Run
from tests.te.conftest import needs_transformer_engine
from tests.te.pairs import checkouts

pytestmark = [needs_transformer_engine, pytest.mark.slow]

SWITCH, ITERATIONS = 6, 12
BLOCK = 128
"""Block scaling wants at least one block in each dimension."""
MODEL = (
    *("--transformer-impl", "transformer_engine"),
    *("--hidden-size", str(BLOCK), "--ffn-hidden-size", str(BLOCK)),
    *("--train-iters", str(ITERATIONS), "--eval-interval", "1000"),
    *("--position-embedding-type", "rope", "--normalization", "RMSNorm", "--swiglu", "--disable-bias-linear"),
    *("--untie-embeddings-and-output-weights", "--hidden-dropout", "0", "--attention-dropout", "0"),
)
FP8 = ("--bf16", "--fp8-format", "hybrid", "--fp8-recipe")
RECIPES = {
    "bf16": ("--bf16",),
    "delayed": (*FP8, "delayed", "--fp8-amax-history-len", "16", "--fp8-amax-compute-algo", "max"),
    "tensorwise": (*FP8, "tensorwise"),
    "blockwise": (*FP8, "blockwise"),
    "mxfp8": (*FP8, "mxfp8"),
}
TRUSTED = {"NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE": "1"}
PRINTED = 1e-5
NEAR = 0.02
"""How far FP8's losses may be from BF16's."""

DISTRIBUTED = ("--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather")
FP8_WEIGHTS = "DP=2, FP8 weights"
LAYOUTS = {
    "TP=2": (("delayed", "blockwise"), {"tensor_parallel": 2}, ("--sequence-parallel",)),
    "PP=2": (("delayed",), {"pipeline_parallel": 2}, ()),
    "DP=2": (("delayed", "tensorwise"), {"data_parallel": 2}, DISTRIBUTED),
    FP8_WEIGHTS: (
        ("delayed", "tensorwise", "blockwise"),
        {"data_parallel": 2},
        (*DISTRIBUTED, "--nca-reinit", "embeddings,attention,mlp,norms"),
    ),
}


@pytest.fixture(scope="module", params=checkouts(), ids=lambda checkout: checkout.tag if checkout else "none")
def checkout(request):
    return request.param


@pytest.fixture(scope="module")
def start(checkout, corpus):
    """A run of a recipe; what else it is given comes on top."""

    def describe(recipe, *flags, **layout):
        entry = f"nca:tokens={SWITCH * 8 * 64},grid=4,colors=3,gzip=none,trajectory=64"
        environment = {**TRUSTED, **({machine.VARIABLE: "10.0"} if recipe == "mxfp8" else {})}
        data = ("--data-path", entry, str(corpus))
        return Run(checkout, (*MODEL, *RECIPES[recipe], *data, *flags), environment=environment, **layout)

    return describe


@pytest.fixture(scope="module")
def straight(start, tmp_path_factory):
    """The log of an uninterrupted run of a recipe in a layout, made once."""
    made = {}

    def log(recipe, layout=None):
        if (recipe, layout) not in made:
            _, ranks, flags = LAYOUTS[layout] if layout else ((), {}, ())
            flags = (*flags, *(("--fp8-param-gather",) if layout == FP8_WEIGHTS and recipe != "bf16" else ()))
            folder = tmp_path_factory.mktemp(recipe)
            log = start(recipe, *flags, **ranks).complete(folder)
            # The last rank logs losses, the first one the switch.
            made[recipe, layout] = replace(log, text=(folder / "rank0.log").read_text())
        return made[recipe, layout]

    return log


def switch_line(log):
    (line,) = [line for line in log.text.splitlines() if "switch to text after" in line]
    return line


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_passes_the_switch_near_its_bf16_losses(straight, recipe):
    losses, plain = straight(recipe).losses, straight("bf16").losses
    assert losses.keys() == plain.keys()
    assert max(losses) == ITERATIONS
    assert losses == pytest.approx(plain, rel=NEAR)
    told = "16 FP8 histories cleared, scales kept" if recipe == "delayed" else "no FP8 history to clear"
    assert switch_line(straight(recipe)).endswith(told)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("killed_at", [SWITCH - 2, SWITCH, SWITCH + 2])
def test_a_run_killed_and_resumed_has_the_losses_of_one_that_was_not(start, straight, tmp_path, recipe, killed_at):
    saved = ("--save", str(tmp_path / "saved"), "--load", str(tmp_path / "saved"), "--ckpt-format", "torch_dist")
    run = start(recipe, *saved, "--save-interval", str(killed_at))
    run.kill_after_saving(killed_at, tmp_path / "killed")
    resumed = replace(run, flags=(*run.flags, "--save-interval", "1000")).complete(tmp_path / "resumed")
    known = {iteration: loss for iteration, loss in resumed.losses.items() if iteration in straight(recipe).losses}
    assert min(resumed.losses) == killed_at + 1
    assert known == pytest.approx({iteration: straight(recipe).losses[iteration] for iteration in known}, rel=PRINTED)
    if killed_at > SWITCH:
        assert "switch to text after" not in resumed.text
    else:
        assert switch_line(resumed) == switch_line(straight(recipe)), "the same count, whatever was loaded"


@pytest.mark.parametrize(
    ("layout", "recipe"), [(layout, recipe) for layout, (recipes, _, _) in LAYOUTS.items() for recipe in recipes]
)
def test_every_layout_passes_the_switch_near_its_bf16_losses(straight, layout, recipe):
    losses, plain = straight(recipe, layout).losses, straight("bf16", layout).losses
    assert max(losses) == ITERATIONS
    assert losses == pytest.approx(plain, rel=NEAR)
    assert "warning" not in switch_line(straight(recipe, layout))


def test_experts_pass_the_switch(start, tmp_path):
    experts = ("--num-experts", "2", "--moe-router-topk", "2", "--moe-grouped-gemm", "--moe-ffn-hidden-size", str(BLOCK))
    log = start("delayed", *experts).complete(tmp_path)
    assert max(log.losses) == ITERATIONS
    assert "FP8 histories cleared, scales kept" in switch_line(log)
    assert "warning" not in switch_line(log)


def test_the_op_fuser_passes_the_switch(start, checkout, tmp_path):
    if checkout.version < (0, 18, 0):
        pytest.skip("--use-transformer-engine-op-fuser came with Megatron-LM 0.18")
    log = start("delayed", "--use-transformer-engine-op-fuser").complete(tmp_path)
    assert max(log.losses) == ITERATIONS
    assert "warning" not in switch_line(log)
    assert int(switch_line(log).split(" FP8 histories")[0].split()[-1]) >= 16


def test_a_run_that_would_not_resume_is_told_so(start, tmp_path):
    version = loading.installed_version()
    run = start("delayed", "--train-iters", str(SWITCH + 1))
    log = replace(run, environment={**run.environment, "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE": "0"}).complete(tmp_path)
    assert ("will refuse to resume this run" in log.text) == (version >= (2, 17))
