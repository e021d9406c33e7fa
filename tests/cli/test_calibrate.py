import zlib

import numpy as np
import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.data.calibration import calibrate, matching_band
from megatron_nca.data.domain import read_entry
from megatron_nca.data.entry import parse_entry
from megatron_nca.errors import EntryError


@pytest.fixture
def write(tmp_path):
    """Write a text as Megatron does; returns its prefix."""

    def to_file(name, tokens, dtype=np.uint16, document=1000):
        import torch
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

        prefix = tmp_path / name
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
        for begin in range(0, len(tokens), document):
            builder.add_item(torch.from_numpy(np.asarray(tokens[begin : begin + document], dtype=np.int64)))
            builder.end_document()
        builder.finalize(f"{prefix}.idx")
        return str(prefix)

    return to_file


def nca_text(band, trajectories=60):
    source = NCASource(NCAConfig(gzip=band), seed=9)
    return source.tokens_batch(range(trajectories), 1024).ravel()


def test_a_window_is_scored_as_a_probe_is(write):
    tokens = np.random.default_rng(0).integers(0, 300, 360 * 20)
    measured = calibrate(write("text", tokens), 360)
    expected = sorted(len(zlib.compress(window.astype("<i4").tobytes(), 9)) + 12 for window in tokens.reshape(20, 360))
    assert measured.sizes.tolist() == expected
    np.testing.assert_allclose(measured.ratios, np.array(expected) / 1440)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_the_type_of_a_stored_token_does_not_matter(write, dtype):
    tokens = np.random.default_rng(0).integers(0, 9000, 30_000)
    assert (
        calibrate(write(f"text{dtype.__name__}", tokens, dtype), 360).sizes.sum()
        == calibrate(write("other", tokens), 360).sizes.sum()
    )


def test_a_text_made_of_rules_of_a_band_is_measured_near_that_band(succeed, write):
    """Delimiters, which a text of trajectories has and a probe has not, make it a little more regular."""
    for band in ((0.3, 0.4), (0.5, 1.0)):
        prefix = write(f"text{band[0]}", nca_text(band))
        median = succeed("calibrate", prefix, "--rules", 200)["texts"][0]["ratio"]["median"]
        assert band[0] - 0.06 < median < band[1]


def test_the_band_holds_the_middle_four_fifths_in_whole_percents():
    assert matching_band([100] * 10 + [395] * 40 + [455] * 40 + [900] * 10, 1000) == (0.39, 0.46)
    assert matching_band(list(range(301, 401)), 1000) == (0.31, 0.39)


def test_a_band_is_five_percents_wide_at_least():
    assert matching_band([400] * 100, 1000) == (0.38, 0.43)
    assert matching_band([1] * 100, 1000) == (0.0, 0.05)


def test_the_band_can_stand_in_an_entry(succeed, write):
    result = succeed("calibrate", write("text", nca_text((0.5, 1.0))), "--rules", 500)["texts"][0]
    assert result["good"]
    assert list(parse_entry(result["entry"]).config.gzip) == result["band"]
    assert 0 < result["acceptance"] < 1
    assert sum(result["histogram"]["rules"]) == 500


def test_nca_of_the_band_is_laid_beside_the_text(command, succeed, write):
    """A text that is NCA itself is like it, but for windows in which two rules meet."""
    prefix = write("text", nca_text((0.3, 0.4)))
    both = succeed("calibrate", prefix, "--rules", 200, "--entry", "nca:")["texts"][0]["statistics"]
    assert both["text"]["entropy"] == pytest.approx(both["nca"]["entropy"], abs=1.2)
    assert both["text"]["change"] == pytest.approx(both["nca"]["change"], abs=0.2)
    assert both["text"]["frequency"][0] == pytest.approx(both["nca"]["frequency"][0], abs=0.2)
    assert np.argmax(both["text"]["autocorrelation"][30:50]) == np.argmax(both["nca"]["autocorrelation"][30:50]) == 7
    _, out, _ = command("calibrate", prefix, "--rules", 200)
    told = f"change over a frame   {both['text']['change']:.1%}     {both['nca']['change']:.1%}"
    assert told in out


def test_an_entry_measures_its_text_itself(succeed, write):
    prefix = write("text", nca_text((0.3, 0.4)))
    entry = read_entry(f"nca:tokens=1M,domain=auto:{prefix}")
    assert entry.tokens == 1_000_000
    assert list(entry.config.gzip) == succeed("calibrate", prefix)["texts"][0]["band"]


def test_the_grammar_leaves_the_text_alone():
    entry = parse_entry("nca:domain=auto:/no/such/text")
    assert (entry.config.gzip, entry.band_from) == (None, "/no/such/text")
    with pytest.raises(EntryError, match=r"'nca:domain=auto:/no/such/text': domain=auto:/no/such/text: .*no tokenised text"):
        read_entry("nca:domain=auto:/no/such/text")


def test_the_window_follows_the_entrys_process(write):
    prefix = write("text", nca_text((0.3, 0.4)))
    small = read_entry(f"nca:domain=auto:{prefix},grid=6").config
    assert small.gzip == calibrate(prefix, 90).band != calibrate(prefix, 360).band


def test_a_text_written_anew_is_measured_anew(write):
    first = calibrate(write("text", nca_text((0.3, 0.4))), 360).band
    assert calibrate(write("text", nca_text((0.5, 1.0), trajectories=80)), 360).band != first


def test_a_run_trains_with_the_measured_band(write, build):
    prefix = write("text", nca_text((0.3, 0.4)))
    train = build([f"nca:tokens=2560,domain=auto:{prefix}", prefix], sizes=(40, 4, 4))[0]
    config = train.plan.curriculum.entries[0].config
    assert config.gzip == calibrate(prefix, 360).band


def test_an_explicit_band_goes_before_the_domain():
    assert parse_entry("nca:domain=auto:/no/such/text,gzip=0.2-0.3").config.gzip == (0.2, 0.3)


def test_several_texts_are_drawn_together(command, write, tmp_path):
    prefixes = [write("a", nca_text((0.3, 0.4), 20)), write("b", nca_text((0.5, 1.0), 20))]
    code, out, _ = command("calibrate", *prefixes, "--rules", 200, "--output", tmp_path / "bands.png")
    assert code == 0
    assert out.count("  band  ") == 2
    assert (tmp_path / "bands.png").read_bytes().startswith(b"\x89PNG")


def test_a_text_that_no_rule_matches_is_a_finding(command, write):
    noise = np.random.default_rng(0).integers(0, 2**31 - 1, 30_000)
    code, out, _ = command("calibrate", write("noise", noise, np.int32), "--rules", 200)
    assert code == 1
    assert "hardly any rule of these settings is as complex" in out


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no tokenised text there"), (b"something else", "is no index of Megatron's"),
     (b"MMIDIDX\x00\x00" + b"\x02" + bytes(7) + b"\x08", "has version 2")],
)  # fmt: skip
def test_what_is_no_text_is_refused(fail, tmp_path, content, problem):
    prefix = tmp_path / "text"
    if content is not None:
        (tmp_path / "text.bin").write_bytes(bytes(100_000))
        (tmp_path / "text.idx").write_bytes(content)
    assert problem in fail("calibrate", prefix)
    assert problem in fail("preview", f"nca:domain=auto:{prefix}", "--text")


def test_a_text_too_short_is_refused(fail, write):
    assert "holds 5,000 tokens, too few to measure" in fail("calibrate", write("text", np.arange(5000)))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--entry", "nca:colours=2", "/a"], "is no key of an entry"),
        (["/a", "--output", "/no/such/folder/a.png"], "there is no folder"),
        (["/a", "--rules", "5"], "must be at least 100"),
    ],
)
def test_bad_usage_is_one_clear_error(fail, arguments, problem):
    assert problem in fail("calibrate", *arguments)


@pytest.mark.parametrize("domain", ["auto", "auto:", "weeb", "webauto:/a"])
def test_another_domain_is_refused(fail, domain):
    assert "or auto:PREFIX of a tokenised text" in fail("preview", f"nca:domain={domain}", "--text")
