import json

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


def test_a_phase_with_a_batch_of_its_own_has_more_iterations(succeed):
    run = ("--seq-length", 1024, "--global-batch-size", 512, "--train-iters", 6000)
    result = succeed("plan", "--data-path", "nca:tokens=164M,batch=32", "/data/owt", *run)
    first, text = result["phases"]
    assert (first["samples"], first["last_iteration"], text["first_iteration"]) == (160_160, 5005, 5006)
    assert text["last_iteration"] == result["iterations"] == 6000
    assert result["samples"] == 160_160 + 995 * 512


def test_a_whole_command_line_gives_the_same_plan(succeed):
    words = ["torchrun", "--nproc-per-node", "8", "-m", "megatron_nca", "pretrain_gpt.py", "--bf16", "--num-layers", "24"]
    assert succeed("plan", *CURRICULUM, *RUN) == succeed("plan", "--json", "--", *words, *CURRICULUM, *RUN, code=0)


@pytest.fixture
def ways(tmp_path):
    """The same data, in each of the ways that Megatron-LM takes them."""
    words = tmp_path / "words.txt"
    words.write_text("nca:tokens=164M\n/data/owt\n", encoding="utf-8")
    splits = tmp_path / "splits.json"
    splits.write_text(
        json.dumps({"train": "nca:tokens=164M /data/owt", "valid": ["/data/owt"], "test": None}), encoding="utf-8"
    )
    return {
        "--data-path": CURRICULUM,
        "--data-args-path": ("--data-args-path", words),
        "--train-data-path": ("--train-data-path", *CURRICULUM[1:], "--valid-data-path", "/data/owt"),
        "--per-split-data-args-path": ("--per-split-data-args-path", splits),
    }


WAYS = ("--data-args-path", "--train-data-path", "--per-split-data-args-path")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("whole_line", [False, True])
def test_the_data_may_be_given_in_every_way_that_megatron_takes_them(succeed, ways, way, whole_line):
    words = ["plan", "--json", "--", "torchrun", "-m", "megatron_nca", "pretrain_gpt.py"] if whole_line else ["plan"]
    result, plain = (succeed(*words, *ways[name], *RUN) for name in (way, "--data-path"))
    assert result.pop("held_out") == {"valid": ["/data/owt"], "test": ["/data/owt"] if way == "--data-args-path" else []}
    assert result == {key: value for key, value in plain.items() if key != "held_out"}


def test_validation_of_several_sets_needs_no_weights(succeed):
    data = ("--train-data-path", *CURRICULUM[1:], "--valid-data-path", "nca:", "nca:domain=code", "/data/v")
    held_out = succeed("plan", *data, *RUN, "--multiple-validation-sets")["held_out"]
    assert held_out == {"valid": ["nca:", "nca:domain=code", "/data/v"], "test": []}


def test_the_vocabulary_is_the_launchs(succeed, fail):
    launch = ("--", "pretrain_gpt.py", *CURRICULUM, *RUN, "--tokenizer-type", "NullTokenizer")
    assert succeed("plan", "--json", *launch, "--vocab-size", "131072")["vocabulary"]["size"] == 131_072
    assert "do not fit the tokenizer" in fail("plan", *launch, "--vocab-size", "5000", code=1)


def test_the_vocabulary_is_read_from_the_launchs_tokenizer(succeed, tmp_path):
    model = {"added_tokens": [{"content": "</s>", "id": 2, "special": True}], "model": {"vocab": {"a": 20_000}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(model), encoding="utf-8")
    launch = ("--", "pretrain_gpt.py", *CURRICULUM, *RUN, "--tokenizer-type", "HuggingFaceTokenizer")
    assert succeed("plan", "--json", *launch, "--tokenizer-model", tmp_path)["vocabulary"]["size"] == 20_001


def test_the_learning_rate_is_the_transitions(succeed):
    rate = ("--lr", "5e-4", "--min-lr", "5e-5", "--lr-decay-style", "cosine", "--nca-lr", "1e-4")
    result = succeed("plan", *CURRICULUM, *RUN, *rate, "--lr-warmup-fraction", "0.05")
    switch = result["phases"][0]["end"]
    before = [lr for place, lr in zip(result["positions"], result["learning_rate"], strict=True) if place < switch]
    after = [lr for place, lr in zip(result["positions"], result["learning_rate"], strict=True) if place >= switch]
    assert max(before) == pytest.approx(1e-4, rel=0.01)
    assert after[0] < 1e-5
    assert max(after) == pytest.approx(5e-4, rel=0.01)


LONG = ("--seq-length", 4096, "--global-batch-size", 1024, "--train-samples", 244_140_625, "--vocab-size", 128_256)
RATES = ("--lr", "3e-4", "--min-lr", "3e-5", "--lr-decay-style", "cosine", "--lr-warmup-samples", 2_000_000)


def peaks(result, key="learning_rate"):
    places = list(zip(result["positions"], result[key], strict=True))
    return [max(rate for place, rate in places if part["begin"] <= place < part["end"]) for part in result["phases"]]


def test_a_short_phase_of_a_long_run_is_sampled_as_closely_as_the_rest(succeed):
    result = succeed("plan", *CURRICULUM, *LONG, *RATES, "--nca-lr", "1e-4")
    assert peaks(result) == pytest.approx([1e-4, 3e-4], rel=1e-3)
    places = result["positions"]
    assert sum(place < result["phases"][0]["end"] for place in places) == 40, "each of its steps"
    first = {"begin": 0, "end": result["phases"][0]["end"] - 1024}
    assert {0, first["end"], result["phases"][1]["begin"]} <= set(places)


def test_the_peak_is_the_schedules_own_however_short_its_warm_up(succeed):
    rates = ("--lr", "3e-4", "--lr-warmup-samples", 2_000_896, "--nca-lr", "1e-4")
    assert max(succeed("plan", *CURRICULUM, *LONG, *rates)["learning_rate"]) == pytest.approx(3e-4, rel=1e-9)


def test_embeddings_have_a_line_of_their_own(succeed, command):
    rates = (*RATES, "--nca-lr", "1e-4", "--decoupled-lr", "1e-3", "--nca-decoupled-lr", "2e-4")
    result = succeed("plan", *CURRICULUM, *LONG, *rates)
    assert peaks(result, "embedding_learning_rate") == pytest.approx([2e-4, 1e-3], rel=1e-3)
    assert "learning rate of the embeddings" in command("plan", *CURRICULUM, *LONG, *rates)[1]


def test_steps_of_a_schedule_of_batches_are_followed(succeed):
    run = ("--seq-length", 1024, "--step-batch-size-schedule", "0:16 1M:32 2M:64", "--train-samples", 20_000)
    phase = succeed("plan", "--data-path", "nca:tokens=1500K", "/data/a", *run)["phases"][0]
    assert (phase["end"], phase["last_iteration"]) == (1488, 61 + (1488 - 976) // 32)


def test_a_flag_of_ours_that_does_not_exist_is_an_error(fail):
    launch = ("--", "torchrun", "-m", "megatron_nca", "pretrain_gpt.py", *CURRICULUM, *RUN)
    assert "--nca-lr-warmup-sample: there is no such flag; did you mean --nca-lr-warmup-samples?" in fail(
        "plan", *launch, "--nca-lr-warmup-sample", "3"
    )
    assert "--nca-what: there is no such flag; " in fail("plan", *launch, "--nca-what=3")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--sft"], "--sft reads conversations"),
        (["--optimizer-cpu-offload"], "--optimizer-cpu-offload keeps copies"),
        (["--use-megatron-fsdp", "--megatron-fsdp-version", "2"], "--megatron-fsdp-version 2 keeps shards"),
        (["--tensor-parallel-num-weight-shards", "2"], "--tensor-parallel-num-weight-shards cuts weights"),
        (
            ["--tensor-parallel-num-weight-shards", "4", "--tensor-model-parallel-size", "2"],
            "cuts weights over a further group",
        ),
        (["--nca-valid", "--eval-iters", "0"], "--eval-iters is 0"),
        (["--nca-decoupled-lr", "1e-4"], "give --decoupled-lr too"),
        (["--nca-optimizer", "new"], "must be one of fresh, keep"),
        (["--nca-lr", "much"], "is no number"),
        (["--nca-lr-at-switch", "continue", "--nca-lr", "1e-4"], "give one or the other"),
    ],
)
def test_what_the_launchs_own_validation_refuses_is_refused_in_its_words(fail, extra, says):
    message = fail("plan", "--", "pretrain_gpt.py", *CURRICULUM, *RUN, *extra, code=1)
    assert says in message
    assert message.count("\n") == 1


def test_shards_of_tensor_parallelism_alone_are_no_further_group(succeed):
    shards = ("--tensor-parallel-num-weight-shards", "2", "--tensor-model-parallel-size", "2")
    assert succeed("plan", "--json", "--", "pretrain_gpt.py", *CURRICULUM, *RUN, *shards)["good"]


def warned(succeed, *words, code=0):
    return succeed("plan", *words, code=code)["warnings"]


def test_strict_ends_with_three_where_there_is_a_warning(succeed, command):
    few = ("--data-path", "nca:tokens=16M", "/data/owt", *RUN, "--vocab-size", 50_304)
    assert "NCA ends after 31 optimizer steps" in warned(succeed, *few)[0]
    assert command("plan", *few, "--strict")[0] == 3
    enough = ("--data-path", "nca:tokens=164M,batch=32", "/data/owt", "--seq-length", 1024, "--global-batch-size", 512)
    quiet = (*enough, "--train-iters", 6000, "--vocab-size", 50_304, "--strict")
    assert warned(succeed, *quiet) == []


@pytest.mark.parametrize(
    ("path", "extra", "says"),
    [
        (["nca:tokens=164M,batch=32", "1", "/a", "0.0001", "/b"], [], "/b: has a share of"),
        (["nca:tokens=164M,batch=32", "/a"], [], "the vocabulary is assumed"),
        (["nca:tokens=164M,batch=32,trajectory=1000", "/a"], [], "ends with 24 of a trajectory of 1,000"),
    ],
)
def test_what_may_not_be_meant_is_told(succeed, path, extra, says):
    run = ("--seq-length", 1024, "--global-batch-size", 512, "--train-iters", 9000)
    assert any(says in line for line in warned(succeed, "--data-path", *path, *run, *extra))


def test_growing_batches_move_the_boundaries(succeed):
    run = ("--seq-length", 1024, "--global-batch-size", 64, "--rampup-batch-size", 16, 16, 960, "--train-samples", 20_000)
    phase = succeed("plan", "--data-path", "nca:tokens=100K", "/data/a", *run)["phases"][0]
    assert (phase["end"], phase["last_iteration"]) == (112, 7)


def test_cores_follow_from_the_speed_of_this_machine(succeed):
    result = succeed("plan", *CURRICULUM, *RUN, "--tokens-per-second", "10M")["generators"][0]
    assert result["cores"] == pytest.approx(1e7 / result["tokens_a_second_a_core"])
    assert result["tokens_a_second_a_core"] > 100_000


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
        (["nca:tokens=1M,gzip=0.98-0.99", "/a"], [], "0 of 1,600 random rules"),
        (["nca:tokens=1M", "/a"], ["--dataloader-type", "cyclic"], "entries need --dataloader-type single"),
        (["nca:tokens=1M", "/a", "0.7"], [], "stands where a dataset is expected"),
        (["nca:tokens=1M", "/a"], ["--lr", "1e-3", "--lr-warmup-iters", "2999"], "too few for the warm-up"),
    ],
)
def test_what_a_launch_would_refuse_is_a_bad_plan(fail, path, extra, problem):
    message = fail("plan", "--data-path", *path, *RUN, *extra, code=1)
    assert message.startswith("megatron-nca: bad plan: ")
    assert problem in message


@pytest.mark.parametrize(
    ("valid", "problem"), [(["nca:gzip=2"], "is not a band"), (["nca:", "/data/v"], "which needs weights")]
)
def test_a_validation_that_a_launch_would_refuse_is_a_bad_plan(fail, valid, problem):
    data = ("--train-data-path", *CURRICULUM[1:], "--valid-data-path", *valid)
    assert problem in fail("plan", *data, *RUN, code=1)


def test_a_bad_plan_is_told_to_machines_too(succeed):
    result = succeed("plan", "--data-path", "nca:tokens=164M", *RUN, code=1)
    assert not result["good"]
    assert "nothing follows" in result["problem"]


def test_a_run_that_never_reaches_its_text_is_a_bad_plan(succeed):
    result = succeed("plan", "--data-path", "nca:tokens=164B", "/a", *RUN, code=1)
    assert "before the switch" in result["problems"][0]


def test_a_path_without_an_entry_is_a_bad_plan(succeed):
    assert "no nca: entry" in succeed("plan", "--data-path", "/a", *RUN, code=1)["problems"][0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*CURRICULUM, "--seq-length", 8, "--train-iters", 3], "--global-batch-size is missing"),
        ([*CURRICULUM, *RUN, "--train-samples", 3], "give the length of the run once"),
        ([*RUN], "--data-path is missing"),
        ([*CURRICULUM, *RUN, "--lr", "1", "--lr-decay-style", "WSD"], "needs --lr-wsd-decay-iters"),
        ([*CURRICULUM, *RUN, "--lr", "1", "--min-lr", "2"], "must lie between 0 and --lr"),
        ([*CURRICULUM, *RUN, "--rampup-batch-size", 1, 1, 1], "needs --train-samples"),
        (
            [*CURRICULUM, *RUN[:4], "--rampup-batch-size", 512, 8, 1000, "--train-samples", 200_000],
            "no whole number of increments",
        ),
        (["--", "pretrain_gpt.py", "--seq-length", "x"], "command line after --"),
        ([*CURRICULUM, *RUN, "--train-data-path", "/a"], "by --data-path and by --train-data-path"),
        (["--valid-data-path", "/a", *RUN], "has nothing for the train split"),
        (["--data-args-path", "/no/such/file", *RUN], "cannot be read"),
        (["--per-split-data-args-path", "{folder}/no.json", *RUN], "is no JSON"),
        (["--per-split-data-args-path", "{folder}/part.json", *RUN], "the keys train, valid, test"),
        (["--per-split-data-args-path", "{folder}/kind.json", *RUN], "a string, or a list of strings"),
    ],
)
def test_bad_usage_is_one_clear_error(fail, tmp_path, arguments, problem):
    files = {"no.json": "nca:", "part.json": '{"train": "nca:"}', "kind.json": '{"train": 1, "valid": null, "test": null}'}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    message = fail("plan", *(str(argument).format(folder=tmp_path) for argument in arguments))
    assert problem in message
    assert len(message.splitlines()) == 1


def test_a_launch_that_transformer_engine_would_not_resume_is_told_so(command, succeed, monkeypatch):
    monkeypatch.delenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE", raising=False)
    monkeypatch.setattr("megatron_nca.cli.commands.plan.installed_version", lambda: None)
    fp8 = ("--fp8-format", "hybrid")
    (note,) = succeed("plan", *CURRICULUM, *RUN, *fp8)["notes"]
    assert "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE=1" in note
    assert f"note: {note}" in command("plan", *CURRICULUM, *RUN, *fp8)[1]
    assert not succeed("plan", *CURRICULUM, *RUN, *fp8, "--fp8-recipe", "blockwise")["notes"]
    assert not succeed("plan", *CURRICULUM, *RUN)["notes"]


@pytest.mark.parametrize(
    ("output", "problem"),
    [("", "must name a file"), ("{folder}", "is a folder"), ("{folder}/none/plan.png", "make it first")],
)
def test_a_place_for_the_picture_is_looked_at_before_the_work(fail, tmp_path, output, problem):
    assert problem in fail("plan", *CURRICULUM, *RUN, "--output", output.format(folder=tmp_path))
    assert not list(tmp_path.iterdir())
