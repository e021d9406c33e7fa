"""The shape of a run stays when its length does not."""

import pytest

from megatron_nca.rehearsal.launching import LaunchError, arguments
from megatron_nca.rehearsal.lengths import BATCH, LEAST, LEAST_OF_RAMP, Length, Scaling, data_paths, describe, sequence_of
from megatron_nca.rehearsal.scaling import Case

SMALL = "grid=4,colors=3,gzip=none,trajectory=64"


def scaled(words, samples=1_000_000, sequence=1024, batch=512, replicas=2, text=lambda prefix: prefix):
    scaling = Scaling(Case("pretrain_gpt.py", arguments(words.split())), Length(samples, sequence, batch), replicas, text)
    flags = arguments(scaling.flags())
    return flags, scaling.samples


def test_every_phase_has_enough_steps_for_a_checkpoint_and_a_kill():
    flags, samples = scaled(f"--train-samples 1000000 --data-path nca:tokens=1M,{SMALL} /data/text")
    assert flags["--data-path"] == [f"nca:tokens={LEAST * BATCH * 64},{SMALL}", "/data/text"]
    assert samples == flags_samples(flags) == BATCH * (LEAST + 8)


def flags_samples(flags):
    return int(flags["--train-samples"])


def test_phases_are_as_long_as_in_the_run_relative_to_it():
    flags, samples = scaled(f"--train-samples 1 --data-path nca:tokens=900M,{SMALL} /data/text")
    phase = int(flags["--data-path"][0].split("tokens=")[1].split(",")[0]) / 64 / BATCH
    assert phase == 7
    assert samples / BATCH == 7 + LEAST


def test_ramps_floors_and_batches_stay():
    flags, _ = scaled(f"--train-samples 1 --data-path nca:tokens=1M,ramp=1M,floor=0.05,batch=1024,{SMALL} /data/text")
    pairs = dict(pair.split("=") for pair in flags["--data-path"][0].removeprefix("nca:").split(","))
    assert pairs["floor"] == "0.05"
    assert int(pairs["batch"]) == 2 * BATCH
    assert int(pairs["ramp"]) == LEAST_OF_RAMP * 2 * BATCH * 64
    assert pairs["grid"] == "4"


def test_a_phase_s_batch_fits_the_replicas():
    flags, _ = scaled(f"--train-iters 1 --data-path nca:tokens=1M,batch=32,{SMALL} /data/text", replicas=4)
    assert "batch=4," in flags["--data-path"][0]


def test_phases_of_text_are_scaled_too():
    flags, _ = scaled(f"--train-iters 1 --data-path nca:tokens=1M,{SMALL} phase:tokens=500M,ramp=10M 0.7 /a 0.3 /b phase: /c")
    assert flags["--data-path"][1:] == [
        f"phase:tokens={LEAST * BATCH * 64},ramp={2 * BATCH * 64}",
        "0.7",
        "/a",
        "0.3",
        "/b",
        "phase:",
        "/c",
    ]


def test_warm_up_and_decay_keep_their_share_of_the_run():
    flags, samples = scaled(
        "--train-samples 1 --lr-warmup-samples 250000 --lr-decay-samples 1000000 --data-path /a", replicas=1
    )
    assert int(flags["--lr-warmup-samples"]) == round(samples / 4)
    assert int(flags["--lr-decay-samples"]) == samples
    flags, samples = scaled("--train-iters 1 --lr-decay-iters 1953 --lr-warmup-fraction 0.01 --data-path /a")
    assert int(flags["--lr-decay-iters"]) == samples // BATCH
    assert flags["--lr-warmup-fraction"] == "0.01"


def test_a_batch_ramp_has_two_steps():
    flags, samples = scaled("--train-samples 1 --rampup-batch-size 32 32 500000 --data-path /a")
    assert flags["--rampup-batch-size"] == [str(BATCH // 2), str(BATCH // 2), str(samples // 2)]


def test_learning_rates_are_the_launch_s():
    flags, _ = scaled("--train-iters 1 --lr 3e-4 --min-lr 3e-5 --lr-decay-style WSD --data-path /a")
    assert (flags["--lr"], flags["--min-lr"], flags["--lr-decay-style"]) == ("3e-4", "3e-5", "WSD")


def test_a_sequence_holds_the_frames_that_an_entry_needs():
    assert sequence_of([]) == 64
    assert sequence_of([f"nca:tokens=1M,{SMALL}"]) == 64
    assert sequence_of(["nca:tokens=1M", f"nca:{SMALL}"]) == 128


def test_each_text_may_be_replaced_that_of_a_measured_band_too():
    flags, _ = scaled(
        "--train-iters 1 --data-path nca:tokens=1M,domain=auto:/a 0.5 /a 0.5 /b", text=lambda prefix: prefix + "!"
    )
    assert flags["--data-path"][1:] == ["0.5", "/a!", "0.5", "/b!"]
    assert "domain=auto:/a!" in flags["--data-path"][0]


def test_data_may_be_given_in_every_way_that_megatron_lm_takes(tmp_path):
    (tmp_path / "path").write_text("nca:tokens=1M /a\n")
    (tmp_path / "splits").write_text('{"train": "nca:tokens=1M /a", "valid": ["/b"], "test": null}')
    for words, expected in (
        (["--data-args-path", str(tmp_path / "path")], {"--data-path": ["nca:tokens=1M", "/a"]}),
        (
            ["--per-split-data-args-path", str(tmp_path / "splits")],
            {"--train-data-path": ["nca:tokens=1M", "/a"], "--valid-data-path": ["/b"]},
        ),
        (["--data-path", "/a"], {"--data-path": ["/a"]}),
    ):
        assert data_paths(Case("pretrain_gpt.py", arguments(words))) == expected


def test_a_file_of_data_that_is_not_there_is_named():
    with pytest.raises(LaunchError, match="absent: cannot be read"):
        data_paths(Case("pretrain_gpt.py", {"--data-args-path": "absent"}))


def test_a_number_format_is_told():
    assert (
        describe({"--bf16": True, "--fp8-format": "hybrid", "--fp8-recipe": "blockwise"}) == "bf16 with FP8 hybrid, blockwise"
    )
    assert describe({}) == "fp32"
