"""A launch is read as its launcher and argparse would read it."""

from pathlib import Path

import pytest

from megatron_nca.rehearsal.launching import LaunchError, arguments, read_file, read_words

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("before", "ranks", "plugin"),
    [
        ("torchrun --nproc-per-node 8 --nnodes 4 -m megatron_nca", 32, True),
        ("torchrun --nproc_per_node=8 --nnodes=1:4", 32, False),
        ("python -m torch.distributed.run --nproc-per-node gpu -m megatron_nca", 8, True),
        ("python -m megatron_nca", 1, True),
        ("torchrun --node_rank 0 --master_addr localhost --nproc_per_node 2", 2, False),
    ],
)
def test_a_command_tells_its_ranks_and_whether_it_has_the_plugin(before, ranks, plugin):
    launch = read_words([*before.split(), "/opt/Megatron-LM/pretrain_gpt.py", "--bf16", "--lr", "1e-4"])
    assert (launch.ranks, launch.plugin) == (ranks, plugin)
    assert launch.script == Path("/opt/Megatron-LM/pretrain_gpt.py")
    assert launch.flags == ("--bf16", "--lr", "1e-4")


def test_ranks_that_srun_starts_itself_are_the_world_s():
    assert read_words(["python", "-m", "megatron_nca", "pretrain_gpt.py"], {"WORLD_SIZE": "64"}).ranks == 64


def test_flags_have_no_value_one_or_several_and_the_last_one_holds():
    words = ["--bf16", "--window-size", "127,0", "--rampup-batch-size", "16", "16", "100", "--lr=1e-4", "--shift", "-1"]
    assert arguments([*words, "--lr", "3e-4"]) == {
        "--bf16": True,
        "--window-size": "127,0",
        "--rampup-batch-size": ["16", "16", "100"],
        "--lr": "3e-4",
        "--shift": "-1",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["torchrun", "--nproc-per-node", "8"], "names no script"),
        (
            ["torchrun", "absent/run_recipe.py"],
            "absent/run_recipe.py: cannot be read .*; it lies in a checkout of Megatron-Bridge",
        ),
        (
            ["torchrun", "absent/train.py"],
            "is no script of Megatron-LM's pre-training .*, nor one that imports megatron.bridge",
        ),
        (["python", str(EXAMPLES / "nemo/llama3_8b.py")], "launches of NeMo cannot be rehearsed"),
    ],
)
def test_what_is_no_launch_is_told_in_one_line(words, message):
    with pytest.raises(LaunchError, match=message) as told:
        read_words(words)
    assert "\n" not in str(told.value)


def test_a_script_that_imports_bridge_is_a_launch_of_bridge(tmp_path):
    script = tmp_path / "run_recipe.py"
    script.write_text("import argparse\n\nfrom megatron.bridge.training.pretrain import pretrain\n")
    launch = read_words(
        ["torchrun", "--nproc-per-node", "8", "-m", "megatron_nca", str(script), "--recipe", "a", "nca.lr=1e-4"]
    )
    assert (launch.stack, launch.script, launch.plugin, launch.ranks) == ("Megatron-Bridge", script, True, 8)
    assert launch.flags == ("--recipe", "a", "nca.lr=1e-4")


def test_a_script_that_imports_the_plugin_needs_no_module_before_it():
    launch = read_words(["torchrun", str(EXAMPLES / "bridge/llama3_8b.py"), "/data/text_document"])
    assert (launch.stack, launch.plugin) == ("Megatron-Bridge", True)


def test_a_file_of_flags_has_comments():
    flags = read_file(EXAMPLES / "slurm/llama3_8b_fp8.args")
    assert flags[:3] == ("--data-path", "nca:tokens=164M", "/data/text_document")
    assert not [word for word in flags if word.startswith("#")]


def test_a_file_of_flags_that_is_not_there_is_named():
    with pytest.raises(LaunchError, match=r"absent\.args: cannot be read"):
        read_file(Path("absent.args"))
