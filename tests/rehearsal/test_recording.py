"""A script of a shell is run up to its launch, which is read instead of started."""

from pathlib import Path

import pytest

from megatron_nca.rehearsal.launching import LaunchError
from megatron_nca.rehearsal.recording import record

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script(tmp_path):
    def write(text, name="train.sh"):
        path = tmp_path / name
        path.write_text("#!/bin/bash\n" + text)
        path.chmod(0o755)
        return [str(path)]

    return write


def test_a_script_s_launch_has_its_variables_expanded(script):
    words = script(
        'ARGS=(--lr $RATE)\nexport NVTE_FUSED_ATTN=0\ntorchrun --nproc-per-node 4 pretrain_gpt.py ${ARGS[@]} "a b"\n'
    )
    launch = record(words, {"RATE": "1e-4"}, None)
    assert launch.flags == ("--lr", "1e-4", "a b")
    assert launch.ranks == 4
    assert launch.environment["NVTE_FUSED_ATTN"] == "0"


def test_nothing_after_the_launch_is_done(script, tmp_path):
    record(script(f"torchrun pretrain_gpt.py\ntouch {tmp_path}/done\n"), {}, None)
    assert not (tmp_path / "done").exists()


def test_a_command_under_srun_is_found_behind_srun_s_options(script):
    words = script(
        "srun -N 2 --kill-on-bad-exit=1 --cpus-per-task 4 bash -c 'exec torchrun pretrain_gpt.py \"$@\"' launch --bf16\n"
    )
    assert record(words, {}, None).flags == ("--bf16",)


def test_other_uses_of_python_are_as_ever(script):
    words = script('RATE=$(python -c "print(1e-4)")\npython -m torch.distributed.run pretrain_gpt.py --lr $RATE\n')
    assert record(words, {}, None).flags == ("--lr", "0.0001")


def test_the_checkout_s_files_are_in_the_working_directory(script, tmp_path):
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout/pretrain_gpt.py").touch()
    words = script("[[ -f pretrain_gpt.py ]] || { echo 'run me from the root'; exit 1; }\ntorchrun pretrain_gpt.py\n")
    assert record(words, {}, tmp_path / "checkout").script == Path("pretrain_gpt.py")
    with pytest.raises(LaunchError, match="ended before it started a training: run me from the root"):
        record(words, {}, None)


def test_a_script_that_is_not_there_is_named():
    with pytest.raises(LaunchError, match=r"absent\.sh: there is no such script"):
        record(["absent.sh"], {}, None)


@pytest.mark.parametrize(
    ("asked", "given", "nodes"), [("#SBATCH --nodes=3\n", None, 3), ("#SBATCH -N 3\n", 5, 5), ("", None, 1)]
)
def test_a_job_has_the_nodes_that_it_asks_for(script, asked, given, nodes):
    words = script(asked + "srun torchrun --nnodes $SLURM_NNODES --nproc-per-node 8 pretrain_gpt.py\n", "job.sbatch")
    assert record(words, {}, None, given).ranks == 8 * nodes


def test_the_batch_script_of_the_examples_comes_to_its_launch(tmp_path):
    flags = tmp_path / "run.args"
    flags.write_text(
        "--data-path nca:tokens=1M /data/t --seq-length 128 --global-batch-size 8 --train-iters 2000 # a tiny run\n"
    )
    variables = {"MEGATRON_LM": "/opt/Megatron-LM", "RUN": str(tmp_path / "run"), "ARGUMENTS": str(flags)}
    launch = record([str(EXAMPLES / "slurm/megatron_lm.sbatch")], variables, None, 4)
    assert launch.script == Path("/opt/Megatron-LM/pretrain_gpt.py")
    assert (launch.ranks, launch.plugin) == (32, True)
    assert launch.flags[:3] == ("--data-path", "nca:tokens=1M", "/data/t")
    assert launch.case.arguments["--save"] == str(tmp_path / "run/checkpoints")
    assert not (tmp_path / "run/complete").exists()
