"""What the words of a Megatron-LM launch decide is refused before Megatron, or torch, is imported."""

import json
import os
import subprocess
import sys

import pytest

from megatron_nca.errors import NCAError
from megatron_nca.training.early import is_megatron_lm, refuse_early

LAUNCH = ("--data-path", "nca:tokens=164M", "/data/text_document", "--seq-length", "1024", "--bf16", "--train-iters", "100")

REFUSED = {
    "no such part": (("--nca-reinit", "head"), "--nca-reinit head: 'head' must be one of"),
    "no number": (("--nca-lr", "fast"), "--nca-lr fast: is no number"),
    "two schedules": (("--nca-lr", "1e-4", "--nca-lr-at-switch", "continue"), "give one or the other"),
    "no such key": (("--data-path", "nca:token=164M", "A"), "data path entry 'nca:token=164M'"),
    "no end": (("--data-path", "phase:", "A", "phase:", "B"), "give tokens=N"),
    "no weight": (("--data-path", "0.5", "nca:", "A"), "no weight"),
    "idle": (("--data-path", "A", "--nca-reinit", "norms"), "no data path has an nca: entry"),
    "mock": (("--data-path", "A", "--mock-data", "--nca-reinit", "norms"), "no data path has an nca: entry"),
    "loader": (("--dataloader-type", "cyclic"), "nca: entries need --dataloader-type single"),
    "no validation": (("--nca-valid", "--eval-iters", "0"), "--nca-valid runs beside the validation of text"),
    "no group": (("--nca-decoupled-lr", "1e-4"), "--decoupled-lr"),
    "fine-tuning": (("--sft",), "--sft reads conversations"),
    "phases": (("--phase-transition-iterations", "5,10"), "--phase-transition-iterations restarts the data"),
    "lengths": (("--hybrid-context-parallel",), "--hybrid-context-parallel lays sequences"),
    "masking": (("--nca-valid", "2", "--dataloader-inter-document-masking"), "which --dataloader-inter-document-masking"),
    "offload": (("--optimizer-cpu-offload",), "--optimizer-cpu-offload keeps copies"),
    "FSDP": (("--use-megatron-fsdp", "--megatron-fsdp-version", "2"), "--megatron-fsdp-version 2 keeps shards"),
    "shards": (("--tensor-parallel-num-weight-shards", "2"), "--tensor-parallel-num-weight-shards cuts weights"),
    "experts": (
        ("--nca-reinit", "mlp", "--num-experts", "8", "--moe-single-grouped-weight"),
        "--moe-single-grouped-weight keeps a rank's experts in one parameter",
    ),
}

GO_THROUGH = {
    "a launch": (),
    "without ours": ("--data-path", "A", "--sft", "--dataloader-type", "cyclic"),
    "weights": ("--data-path", "0.1", "nca:", "0.9", "A"),
    "FSDP of version one": ("--use-megatron-fsdp", "--megatron-fsdp-version=1"),
    "shards of tensor parallelism alone": (
        *("--tensor-model-parallel-size", "2", "--tensor-parallel-num-weight-shards", "2"),
        *("--expert-tensor-parallel-num-weight-shards", "2"),
    ),
    "offload without a transition": ("--optimizer-cpu-offload", "--nca-reinit", "none", "--nca-optimizer", "keep"),
    "a number that Megatron refuses": ("--sft", "--eval-iters", "many"),
    "arguments in a file": ("--sft", "--yaml-cfg", "launch.yaml"),
    "a file that is not here": ("--data-args-path", "/nowhere", "--sft"),
}


def refusal(*words):
    with pytest.raises(NCAError) as refused:
        refuse_early(words)
    assert refused.value.is_of_every_rank
    return str(refused.value)


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_words_that_decide_are_enough(words, message):
    assert message in refusal(*LAUNCH, *words)


@pytest.mark.parametrize("words", GO_THROUGH.values(), ids=GO_THROUGH)
def test_what_is_right_or_not_understood_goes_on_to_megatron(words):
    refuse_early((*LAUNCH, *words))


def test_data_paths_in_files_and_of_splits_are_read(tmp_path):
    whole, parts = tmp_path / "data.txt", tmp_path / "data.json"
    whole.write_text("nca:tokens=164M A\n")
    parts.write_text(json.dumps({"train": "nca:tokens=164M A", "valid": ["B"], "test": None}))
    for words in (
        ("--data-args-path", str(whole)),
        ("--per-split-data-args-path", str(parts)),
        ("--train-data-path", "nca:tokens=164M", "A", "--valid-data-path", "B"),
    ):
        refuse_early(words)
        assert "--sft reads" in refusal(*words, "--sft")


def test_a_script_whose_data_are_its_own_is_left_alone():
    refuse_early(("--sft", "--nca-reinit", "none"))


def test_only_megatrons_own_loop_is_looked_at(tmp_path):
    script = tmp_path / "pretrain.py"
    script.write_text("from megatron.training import pretrain\n")
    assert is_megatron_lm(script)
    script.write_text("from megatron.bridge.training.pretrain import pretrain\n")
    assert not is_megatron_lm(script)


def test_nothing_large_is_imported_for_a_refusal():
    code = f"""
import sys
import megatron_nca.__main__
from megatron_nca.training.early import refuse_early
try:
    refuse_early({(*LAUNCH, "--sft")!r})
except ValueError:
    print(sorted({{"torch", "megatron.core", "megatron.training"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_rank_0_tells_it_in_one_line_and_every_rank_fails(tmp_path):
    script = tmp_path / "pretrain.py"
    script.write_text("raise SystemExit('megatron.training would be imported here')\n")
    command = (sys.executable, "-m", "megatron_nca", str(script), *LAUNCH, "--dataloader-type", "cyclic")
    environments = [{**os.environ, "RANK": str(rank)} for rank in range(2)]
    ranks = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for environment in environments]
    errors = [process.communicate()[1] for process in ranks]
    assert [process.returncode for process in ranks] == [1, 1]
    assert errors[1] == ""
    (line,) = errors[0].splitlines()
    assert line.startswith("megatron-nca: CurriculumError: nca: entries need --dataloader-type single")
