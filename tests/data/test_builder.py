import os

import numpy as np
import pytest
import torch

from megatron_nca.data.run import DataInfo
from megatron_nca.errors import CurriculumError, EntryError, NCAError, VocabularyError
from megatron_nca.stacks import CORE

TEXT_KEYS = ("tokens", "labels", "loss_mask", "position_ids", "attention_mask")


@pytest.fixture(autouse=True)
def no_batch_size():
    from megatron.core.num_microbatches_calculator import unset_num_microbatches_calculator

    unset_num_microbatches_calculator()
    yield
    unset_num_microbatches_calculator()


def sources(dataset):
    """From which source each position is read."""
    return [dataset.plan.schedule.locate(place)[0] for place in range(len(dataset))]


def same(one, other, keys=TEXT_KEYS):
    return all(torch.equal(one[key], other[key]) for key in keys)


def test_text_after_the_phase_is_what_a_run_of_the_text_alone_would_read(build, text):
    train, valid, test = build(["nca:tokens=2560", text])
    alone = build([text], sizes=(80, 10, 10))
    assert len(train) == 100
    assert all(same(train[20 + place], alone[0][place]) for place in range(80))
    for ours, baselines in ((valid, alone[1]), (test, alone[2])):
        assert type(ours) is type(baselines)
        assert len(ours) == len(baselines)
        assert all(same(ours[place], baselines[place]) for place in range(len(ours)))


def test_a_text_blend_after_the_phase_is_megatrons_own(build, text, other_text):
    train = build(["1", "nca:tokens=2560", "0.7", text, "0.3", other_text])[0]
    alone = build(["0.7", text, "0.3", other_text], sizes=(80, 10, 10))[0]
    assert all(same(train[20 + place], alone[place]) for place in range(80))


@pytest.mark.parametrize("blend", ["1 nca:tokens=2560 0.7 A 0.3 B", "0.5 nca: 0.3 A 0.2 B", "nca:tokens=2560 A"])
def test_a_sample_holds_what_gpt_datasets_holds_and_nothing_else(build, text, other_text, blend):
    """Megatron-LM's context-parallel slicer cuts dimension 1 of everything that a batch holds."""
    keys = build([text])[0][0].keys()
    splits = build([{"A": text, "B": other_text}.get(word, word) for word in blend.split()])
    assert {tuple(split[place]) for split in splits for place in (0, len(split) - 1)} == {tuple(keys)}
    batch = next(iter(torch.utils.data.DataLoader(splits[0], batch_size=4)))
    assert all(value.ndim > 1 and value.shape[1] for value in batch.values())


def test_validation_of_a_text_blend_has_the_samples_of_a_run_of_the_text_alone(build, text, other_text):
    splits = build(["1", "nca:tokens=2560", "0.7", text, "0.3", other_text])
    alone = build(["0.7", text, "0.3", other_text])
    for ours, baselines in zip(splits[1:], alone[1:], strict=True):
        assert len(ours) == len(baselines)
        assert ours.split is baselines.split
        assert all(same(ours[place], baselines[place]) for place in range(len(ours)))


def test_the_switch_is_at_the_entrys_tokens_rounded_up_to_the_global_batch(build, text):
    from megatron.core.num_microbatches_calculator import init_num_microbatches_calculator

    init_num_microbatches_calculator(0, None, 24, 2, 4)
    train = build(["nca:tokens=2500", text])[0]
    assert sources(train) == [0] * 24 + [1] * 76


def test_a_mixed_batch_collates(build, text, other_text):
    train = build(["0.5", "nca:", "0.25", text, "0.25", other_text])[0]
    batch = next(iter(torch.utils.data.DataLoader(train, batch_size=16)))
    assert batch["tokens"].shape == (16, 128)
    assert set(sources(train)[:16]) == {0, 1}


def test_an_everlasting_blend_is_validated_in_the_same_shares(build, text):
    train, valid, _ = build(["0.25", "nca:", "0.75", text], sizes=(100, 40, 10))
    assert sources(train).count(0) == 25
    assert sources(valid).count(0) == 10


def test_splits_of_their_own_are_read_as_given(build, text, other_text):
    train, valid, test = build(per_split=[["nca:tokens=2560", text], [other_text], None])
    alone = build(per_split=[[text], [other_text], None], sizes=(80, 10, 10))
    assert same(train[20], alone[0][0])
    assert same(valid[0], alone[1][0])
    assert test is None


def test_an_entry_is_parsed_once_a_build(build, text, monkeypatch):
    from megatron_nca.data import data_path, entry

    parsed = []
    parse = entry.parse_entry
    monkeypatch.setattr(data_path, "parse_entry", lambda word: parsed.append(word) or parse(word))
    build(["1", "nca:tokens=2560", "0.1", "nca:domain=code", "0.9", text])
    assert parsed == ["nca:tokens=2560", "nca:domain=code"]
    parsed.clear()
    build(per_split=[["nca:tokens=2560", text], ["nca:"], None])
    assert parsed == ["nca:tokens=2560", "nca:"]


def test_nca_can_be_a_validation_split_of_its_own(build, text):
    _, valid, _ = build(per_split=[[text], ["nca:"], None], sizes=(10, 6, 0))
    assert len(valid) == 6
    assert valid[0]["loss_mask"].sum() == 128 - 37


def test_several_validation_sets_stay_apart_in_their_order(build, text, other_text):
    _, valid, _ = build(per_split=[["nca:tokens=2560", text], [text, "nca:", other_text], None], multiple_validation_sets=True)
    assert [type(dataset).__name__ for dataset in valid] == ["GPTDataset", "NCADataset", "GPTDataset"]
    _, valid, _ = build(per_split=[[text], ["nca:", other_text], None], multiple_validation_sets=True)
    assert [type(dataset).__name__ for dataset in valid] == ["NCADataset", "GPTDataset"]


def test_a_split_that_the_run_leaves_out_is_none(build, text):
    assert build(["nca:tokens=2560", text], split="100,0,0")[1:] == [None, None]
    assert build(["nca:"], split="100,0,0")[1:] == [None, None]


def test_a_run_that_ends_within_the_phase_reads_no_text(build, text):
    train = build(["nca:tokens=1M", text])[0]
    assert set(sources(train)) == {0}


def test_a_position_outside_the_run_is_an_index_error(build):
    with pytest.raises(IndexError, match="run of 100"):
        build(["nca:"])[0][100]


def test_nothing_is_written_for_nca(build, tmp_path):
    build(["nca:tokens=1M", "nca:domain=code"], sizes=(100_000_000, 10, 10))
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_known_on_ranks_that_read_no_data(build, text, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "barrier", lambda *args, **kwargs: None)
    run = Run()
    assert build(["nca:tokens=2560", text], is_built_on_rank=lambda: False, run=run) == [None, None, None]
    assert [plan.switch for plan in run.plans] == [20]


def read_on(train, source, own):
    """Every sample that a dataset reads from a source is the source's own, in order."""
    places = [place for place, number in enumerate(sources(train)) if number == source]
    return all(same(train[place], own[index]) for index, place in enumerate(places))


def test_a_text_of_several_phases_is_one_dataset_read_on(build, text, other_text):
    words = ["nca:tokens=2560", "phase:tokens=3840", "0.75", text, "0.25", other_text, "phase:", "0.5", text, "0.5", other_text]
    train, valid, test = build(words)
    assert train.plan.schedule.counts(100) == (20, 23 + 25, 7 + 25)
    for source, prefix in ((1, text), (2, other_text)):
        count = train.plan.schedule.counts(100)[source]
        assert read_on(train, source, build([prefix], sizes=(count, 10, 10))[0])
    alone = build(["0.5", text, "0.5", other_text])
    for ours, baselines in ((valid, alone[1]), (test, alone[2])):
        assert len(ours) == len(baselines)
        assert all(same(ours[place], baselines[place]) for place in range(len(ours)))


def test_phases_in_a_train_split_of_their_own(build, text, other_text):
    train, valid, test = build(per_split=[["phase:tokens=2560", text, "phase:", other_text], [text], None])
    alone = build(per_split=[[text], [text], None], sizes=(20, 10, 10))
    assert read_on(train, 0, alone[0])
    assert same(valid[0], alone[1][0])
    assert test is None


def test_weights_need_stand_only_where_they_mean_something(build, text, other_text):
    """An even number of words, some numbers at even places: Megatron's own reading ends in an assertion."""
    words = ["phase:tokens=1280", "0.5", text, "phase:", "0.5", text, "0.5", other_text]
    assert build(words)[0].plan.schedule.counts(100) == (55, 45)
    old, new = (
        build(["1", "nca:tokens=2560", "0.7", text, "0.3", other_text]),
        build(["nca:tokens=2560", "0.7", text, "0.3", other_text]),
    )
    assert all(same(old[0][place], new[0][place]) for place in range(100))


def test_a_missing_text_of_a_later_phase_is_found_at_the_start(build, text):
    with pytest.raises(CurriculumError, match="'missing' has no file"):
        build(["phase:tokens=1M", text, "phase:", "missing"])


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("blended", [False, True])
def test_without_an_entry_nothing_changes(build, text, other_text, tmp_path, blended):
    """Datasets, samples and cache files of registered and unregistered Megatron-Core, byte for byte."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder as Builder

    blend = ["0.7", text, "0.3", other_text] if blended else [text]
    registered = build(blend, path_to_cache=str(tmp_path / "registered"))
    wrapped = Builder.build
    Builder.build = wrapped.__wrapped__
    try:
        plain = build_unregistered(blend, tmp_path / "plain")
    finally:
        Builder.build = wrapped
    assert [type(dataset) for dataset in registered] == [type(dataset) for dataset in plain]
    for ours, theirs in zip(registered, plain, strict=True):
        assert len(ours) == len(theirs)
        for place in range(len(ours)):
            mine, its = ours[place], theirs[place]
            assert mine.keys() == its.keys()
            assert all(np.array_equal(mine[key], its[key]) for key in mine)
    assert snapshot(tmp_path / "registered") == snapshot(tmp_path / "plain")


def build_unregistered(blend, cache):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    from tests.conftest import Tokenizer

    assert not hasattr(BlendedMegatronDatasetBuilder.build, "__wrapped__")
    config = GPTDatasetConfig(
        random_seed=1234, sequence_length=128, path_to_cache=str(cache), tokenizer=Tokenizer(), reset_position_ids=False,
        reset_attention_mask=False, eod_mask_loss=False, split="90,5,5", blend=get_blend_from_list(blend),
    )  # fmt: skip
    return BlendedMegatronDatasetBuilder(GPTDataset, [100, 10, 10], lambda: True, config).build()


def test_registering_twice_wraps_once(build, text):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder as Builder

    import megatron_nca

    once = Builder.build
    megatron_nca.register()
    assert Builder.build is once


def test_a_seam_of_another_form_is_refused(monkeypatch):
    from megatron.core.datasets import blended_megatron_dataset_builder as module

    import megatron_nca
    from megatron_nca.errors import EnvironmentMismatchError

    class Other:
        def __init__(self, config):
            pass

        def build(self):
            pass

    monkeypatch.setattr(module, "BlendedMegatronDatasetBuilder", Other)
    with pytest.raises(EnvironmentMismatchError, match=r"takes \['self', 'config'\].*use Megatron-Core 0.14 to 0.20"):
        megatron_nca.register()


@pytest.mark.parametrize(("version", "rank", "warned"), [("0.21.0", "0", True), ("0.21.0", "3", False), ("0.20.0", "0", False)])
def test_rank_0_warns_of_a_version_that_was_not_tested(version, rank, warned, monkeypatch, caplog):
    import megatron.core

    from megatron_nca.data import hook

    monkeypatch.setattr(megatron.core, "__version__", version)
    monkeypatch.setenv("RANK", rank)
    hook.builder_class()
    assert ("was tested with Megatron-Core 0.14 to 0.20; this is 0.21.0" in caplog.text) == warned


class Run:
    """What the builder asks of a run."""

    stack = CORE
    is_driven = True

    def __init__(self, **info):
        self.data_info = DataInfo(**{"batches_from": info.get("consumed_samples", 0), **info})
        self.plans, self.datasets = [], []

    def begin(self, plan, datasets):
        self.plans.append(plan)
        self.datasets.append(datasets)


def test_a_run_is_told_that_it_has_no_plan(build, text):
    run = Run()
    build([text], run=run)
    build(per_split=[[text], ["nca:"], None], sizes=(10, 6, 0), run=run)
    assert run.plans == [None, None]


def test_a_run_is_told_what_its_samples_are_made_from(build, text, other_text, tokenizer):
    run, other = Run(), Run()
    build(["nca:tokens=2560", text], run=run)
    assert (run.datasets[0].seed, len(run.datasets[0].texts)) == (1234, 1)
    assert run.datasets[0].texts[0].startswith("300 sequences, 300 documents, index ")
    tokenizer.eod = 7
    build(["nca:tokens=2560", other_text], run=other)
    assert run.datasets[0].texts != other.datasets[0].texts
    assert "end of document 5" in run.datasets[0].tokens
    assert "end of document 7" in other.datasets[0].tokens


def test_a_text_that_is_missing_is_refused_by_name_before_megatron_looks_for_it(build):
    with pytest.raises(CurriculumError, match=r"'missing' has no file missing\.idx on \S+; give the prefix"):
        build(["nca:tokens=2560", "missing"])


def test_a_loop_that_never_calls_the_transition_is_told_once_at_its_first_sample(build, text, caplog):
    run = Run()
    run.is_driven = False
    train = build(["nca:tokens=2560", text], run=run)[0]
    assert not caplog.records
    for position in (0, 1, 20):
        train[position]
    [record] = caplog.records
    assert "go over to text after 20 samples" in record.getMessage()
    assert "before_step" in record.getMessage()


def test_a_phase_that_has_ended_is_not_moved_by_another_batch_size(build, text):
    from megatron.core.num_microbatches_calculator import init_num_microbatches_calculator

    init_num_microbatches_calculator(0, None, 16, 2, 4)
    two = ["nca:tokens=2560", "nca:tokens=1280,domain=code", text]
    train = build(two, run=Run(consumed_samples=30, ended_phases=(20,)))[0]
    assert [phase.end for phase in train.plan.phases] == [20, 30]
    train = build(two, run=Run(consumed_samples=26, ended_phases=(20,)))[0]
    assert [phase.end for phase in train.plan.phases] == [20, 42]


def test_a_dataset_that_is_not_gpts_is_refused(build, text):
    from megatron.core.datasets.bert_dataset import BERTMaskedWordPieceDataset

    with pytest.raises(CurriculumError, match="reads it with BERTMaskedWordPieceDataset"):
        build(["nca:tokens=2560", text], cls=BERTMaskedWordPieceDataset)


def test_a_small_vocabulary_is_refused(build, text, tokenizer):
    tokenizer.vocab_size = 9_999
    with pytest.raises(VocabularyError, match="colors=9"):
        build(["nca:tokens=2560", text])


def test_a_band_without_rules_is_refused(build, text):
    with pytest.raises(EntryError, match=r"0 of 1,600 random rules .*; gzip=0\.\d+-0\.[5-9]\d* holds \d+% of them; give that"):
        build(["nca:tokens=2560,gzip=2-3", text])


def test_text_that_runs_out_is_refused(build, text, other_text):
    with pytest.raises(CurriculumError, match="leaves 99,980 samples to the text, which holds"):
        build(["nca:tokens=2560", text, other_text], sizes=(100_000, 10, 10))


def test_validation_without_a_size_is_refused(build, text):
    with pytest.raises(EntryError, match="give the number of evaluation samples"):
        build(per_split=[["nca:tokens=2560", text], ["nca:"], None], sizes=(100, None, 10))


def test_a_run_longer_than_its_only_phase_is_refused(build):
    with pytest.raises(EntryError, match="nothing follows this phase, which ends after 2,560 tokens"):
        build(["nca:tokens=2560"])


@pytest.mark.parametrize("blend", [["nca:tokens=1M", "missing"], ["nca:x=1"], ["0.5", "nca:", "0.5", "missing"]])
def test_a_refused_run_leaves_nothing_behind(build, tmp_path, blend, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((NCAError, OSError, AssertionError)):
        build(blend)
    assert os.listdir(tmp_path) == []
