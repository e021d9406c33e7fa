import pytest
import torch

from megatron_nca.automaton import compiled, tables
from megatron_nca.data.entry import parse_entry
from megatron_nca.data.fingerprint import check_ranks_agree, fingerprint
from megatron_nca.errors import EnvironmentMismatchError

WEB = parse_entry("nca:")


def test_the_same_entries_have_the_same_fingerprint():
    assert fingerprint([WEB], 1) == fingerprint([parse_entry("nca:domain=web,tokens=5M")], 1)


@pytest.mark.parametrize("text", ["nca:domain=code", "nca:colors=9", "nca:seed=2", "nca:rules=1"])
def test_other_samples_have_another(text):
    assert fingerprint([parse_entry(text)], 1) != fingerprint([WEB], 1)


def test_a_machine_that_refuses_says_why_instead(monkeypatch):
    monkeypatch.setitem(tables.DIGESTS, "odds_table", "0" * 64)
    tables.odds_table.cache_clear()
    compiled.tables.cache_clear()
    assert fingerprint([parse_entry("nca:temperature=0.0123")], 1).startswith("EnvironmentMismatchError: odds_table: digest")
    monkeypatch.undo()
    tables.odds_table.cache_clear()


def world(monkeypatch, fingerprints):
    def gather(into, own):
        into[:] = fingerprints

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: len(fingerprints))
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)


def test_ranks_that_agree_go_on(monkeypatch):
    world(monkeypatch, ["a"] * 8)
    check_ranks_agree("a")


def test_ranks_that_differ_are_named(monkeypatch):
    world(monkeypatch, ["a", "a", "b", "a", "a", "c", "a"])
    with pytest.raises(EnvironmentMismatchError, match=r"2 of 7 differ from the rest, rank 2, 5 \(rank 2: b; the rest: a\)"):
        check_ranks_agree("a")


def test_many_ranks_are_counted(monkeypatch):
    world(monkeypatch, ["a"] * 30 + ["b"] * 20)
    with pytest.raises(EnvironmentMismatchError, match=r"rank 30, 31, .* and 4 more"):
        check_ranks_agree("a")
