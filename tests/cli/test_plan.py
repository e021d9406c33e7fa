import pytest

RUN = ("--seq-length", 1024, "--global-batch-size", 512, "--train-iters", 3000)
CURRICULUM = ("--data-path", "nca:tokens=164M", "/data/owt")


def test_phases_are_told_in_tokens_samples_and_iterations(succeed):
    first, text = succeed("plan", *CURRICULUM, *RUN)["phases"]
    assert (first["tokens"], first["samples"], first["first_iteration"], first["last_iteration"]) == (
        164_102_144,
        160_256,
        1,
        313,
    )
    assert (text["entry"], text["first_iteration"], text["last_iteration"]) == ("/data/owt", 314, 3000)


def test_a_whole_command_line_gives_the_same_plan(succeed):
    words = ["torchrun", "--nproc-per-node", "8", "-m", "megatron_nca", "pretrain_gpt.py", "--bf16", "--num-layers", "24"]
    assert succeed("plan", *CURRICULUM, *RUN) == succeed("plan", "--json", "--", *words, *CURRICULUM, *RUN, code=0)


def test_the_learning_rate_is_the_transitions(succeed):
    rate = ("--lr", "5e-4", "--min-lr", "5e-5", "--lr-decay-style", "cosine", "--nca-lr", "1e-4")
    told = succeed("plan", *CURRICULUM, *RUN, *rate, "--lr-warmup-fraction", "0.05")
    switch = told["phases"][0]["end"]
    before = [lr for place, lr in zip(told["positions"], told["learning_rate"], strict=True) if place < switch]
    after = [lr for place, lr in zip(told["positions"], told["learning_rate"], strict=True) if place >= switch]
    assert max(before) == pytest.approx(1e-4, rel=0.01)
    assert after[0] < 1e-5
    assert max(after) == pytest.approx(5e-4, rel=0.01)


def test_growing_batches_move_the_boundaries(succeed):
    run = ("--seq-length", 1024, "--global-batch-size", 64, "--rampup-batch-size", 16, 16, 960, "--train-samples", 20_000)
    phase = succeed("plan", "--data-path", "nca:tokens=100K", "/data/a", *run)["phases"][0]
    assert (phase["end"], phase["last_iteration"]) == (112, 7)


def test_cores_follow_from_the_speed_of_this_machine(succeed):
    told = succeed("plan", *CURRICULUM, *RUN, "--tokens-per-second", "10M")["generators"][0]
    assert told["cores"] == pytest.approx(1e7 / told["tokens_a_second_a_core"])
    assert told["tokens_a_second_a_core"] > 100_000


def test_the_picture_is_a_png(command, tmp_path):
    code, out, _ = command("plan", *CURRICULUM, *RUN, "--lr", "1e-3", "--output", tmp_path / "plan.png")
    assert code == 0
    assert "164,102,144" in out
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "extra", "problem"),
    [
        (["nca:tokens=164M"], [], "nothing follows this phase"),
        (["nca:tokens=164M,colours=3", "/a"], [], "is no key of an entry"),
        (["nca:", "/a"], [], "has no tokens="),
        (["nca:tokens=1M", "/a"], ["--vocab-size", "5000"], "do not fit the tokenizer"),
        (["nca:tokens=1M,gzip=0.98-0.99", "/a"], [], "none of 4,096 random rules"),
        (["nca:tokens=1M", "/a"], ["--dataloader-type", "cyclic"], "need single"),
        (["nca:tokens=1M", "/a"], ["--lr", "1e-3", "--lr-warmup-iters", "2999"], "too few for the warm-up"),
    ],
)
def test_what_a_launch_would_refuse_is_a_bad_plan(fail, path, extra, problem):
    message = fail("plan", "--data-path", *path, *RUN, *extra, code=1)
    assert message.startswith("megatron-nca: bad plan: ")
    assert problem in message


def test_a_bad_plan_is_told_to_machines_too(succeed):
    told = succeed("plan", "--data-path", "nca:tokens=164M", *RUN, code=1)
    assert not told["good"]
    assert "nothing follows" in told["problem"]


def test_a_run_that_never_reaches_its_text_is_a_bad_plan(succeed):
    told = succeed("plan", "--data-path", "nca:tokens=164B", "/a", *RUN, code=1)
    assert "before the switch" in told["warnings"][0]


def test_a_path_without_an_entry_is_a_bad_plan(succeed):
    assert "no nca: entry" in succeed("plan", "--data-path", "/a", *RUN, code=1)["warnings"][0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*CURRICULUM, "--seq-length", 8, "--train-iters", 3], "--global-batch-size is missing"),
        ([*CURRICULUM, *RUN, "--train-samples", 3], "give the length of the run once"),
        ([*RUN], "--data-path is missing"),
        ([*CURRICULUM, *RUN, "--lr", "1", "--lr-decay-style", "WSD"], "needs --lr-wsd-decay-iters"),
        ([*CURRICULUM, *RUN, "--lr", "1", "--min-lr", "2"], "must lie between 0 and --lr"),
        ([*CURRICULUM, *RUN, "--rampup-batch-size", 1, 1, 1], "needs --train-samples"),
        (["--", "pretrain_gpt.py", "--seq-length", "x"], "command line after --"),
    ],
)
def test_bad_usage_is_one_clear_error(fail, arguments, problem):
    assert problem in fail("plan", *arguments)
