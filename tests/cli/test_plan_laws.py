"""What `plan` computes without Megatron-Core is what Megatron-Core computes."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from megatron_nca.cli.launch.schedule import RampupBatches, Schedule, stepwise_sizes
from megatron_nca.data.batches import run_steps
from megatron_nca.data.phase_word import blend_of

STYLES = [
    ("constant", None), ("linear", None), ("cosine", None), ("inverse-square-root", None),
    ("WSD", "exponential"), ("WSD", "linear"), ("WSD", "cosine"), ("WSD", "minus_sqrt"),
]  # fmt: skip
GROUPS = [{}, {"max_lr": 5e-3}, {"max_lr": 5e-3, "min_lr": 2e-3}]


@pytest.mark.parametrize(("style", "final"), STYLES)
@pytest.mark.parametrize("warmup", [0, 100, 33.3])
@pytest.mark.parametrize("group", GROUPS)
def test_the_learning_rate_is_megatrons(style, final, warmup, group):
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    law = {
        "init_lr": 1e-6, "max_lr": 1e-3, "min_lr": 1e-5, "lr_warmup_steps": warmup, "lr_decay_steps": 1000,
        "lr_decay_style": style,
        "wsd_decay_steps": 300 if final else None, "lr_wsd_decay_style": final,
    }  # fmt: skip
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.0, "weight_decay": 0.0}])
    theirs = OptimizerParamScheduler(optimizer, **law, start_wd=0.0, end_wd=0.0, wd_incr_steps=1000, wd_incr_style="constant")
    ours = Schedule(**law)
    for position in range(0, 1200, 7):
        theirs.num_steps = ours.num_steps = position
        assert ours.get_lr(group) == theirs.get_lr(group)


@pytest.mark.parametrize(
    ("start", "increment", "samples", "end"),
    [(16, 16, 960, 64), (32, 8, 1000, 512), (1, 1, 7, 4), (8, 56, 100, 64), (16, 16, 3, 64), (16, 48, 0, 64)],
)
def test_growing_batches_are_megatrons(start, increment, samples, end):
    from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator as Theirs

    theirs = Theirs(end, 1, 1, False, 0, start, increment, samples) if samples else None
    steps = run_steps(RampupBatches(start, increment, samples, end))
    if theirs is None:
        assert steps[-1][1] == end
        return
    assert steps == run_steps(theirs)


@pytest.mark.parametrize("numbers", [(64, 8, 100, 64), (16, 7, 100, 64), (128, 8, 100, 64)])
def test_numbers_that_lead_nowhere_are_refused(numbers):
    with pytest.raises(ValueError, match="no whole number of increments"):
        RampupBatches(*numbers)


def test_a_schedule_of_steps_is_read_as_megatron_reads_it():
    assert stepwise_sizes("0:768 250B:1536,500B:3072", 4096) == ((0, 768), (61_035_156, 1536), (122_070_312, 3072))
    for wrong in ("", "1B:768", "0:768 0:1536", "0:0", "0:768 1X:3", "768"):
        with pytest.raises(ValueError, match=r"must be|could not convert|invalid literal"):
            stepwise_sizes(wrong, 4096)


@pytest.mark.parametrize("words", [["/a"], ["/a", "/b"], ["0.3", "/a", "0.7", "/b"], ["1", "/a"], ["/a", "/b", "/c"]])
def test_a_data_path_is_read_as_megatron_reads_it(words):
    from megatron.core.datasets.utils import get_blend_from_list

    prefixes, weights = get_blend_from_list(words)
    assert blend_of(words) == (list(prefixes), weights)


def test_a_plan_needs_neither_torch_nor_megatron():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['megatron'] = None\n"
        "from megatron_nca.cli.main import main\n"
        "sys.exit(main('plan --data-path nca:tokens=164M,batch=32 0.7 /a 0.3 /b --seq-length 1024 --global-batch-size 512 "
        "--train-iters 20000 --lr 5e-4 --nca-lr 1e-4 --json'.split()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
