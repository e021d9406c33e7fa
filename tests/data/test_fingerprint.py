import numpy as np
import pytest
import torch

from megatron_nca.automaton import compiled, complexity, tables
from megatron_nca.automaton.complexity import gzip_size, probe_bytes, sizes_in_band
from megatron_nca.automaton.source import NCASource
from megatron_nca.data.entry import parse_entry
from megatron_nca.data.fingerprint import CANDIDATES, check_ranks_agree, fingerprint, with_complexity
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


def judged(entry=WEB):
    return with_complexity("samples", [entry], 1)


@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize("off", [-1, 1])
def test_a_size_that_is_one_byte_off_at_an_edge_of_the_band_gives_another(edge, off, monkeypatch):
    """Only the size that lies nearest to the edge is wrong."""
    right, raw = judged(), probe_bytes(WEB.config)
    at = sizes_in_band(WEB.config.gzip, raw)[edge]
    sizes = np.rint(NCASource(WEB.config, 1).complexities(CANDIDATES) * raw)
    nearest = sizes[np.abs(sizes - at).argmin()]
    monkeypatch.setattr(complexity, "gzip_size", lambda data: gzip_size(data) + off * (gzip_size(data) == nearest))
    assert judged() != right


@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize("off", [-1, 1])
def test_verdicts_that_are_one_byte_off_give_another(edge, off, monkeypatch):
    """The engine compares with its edges as a kernel that sizes every probe a byte otherwise would."""
    right = judged()

    def moved(band, raw):
        edges = list(sizes_in_band(band, raw))
        edges[edge] += off
        return tuple(edges)

    monkeypatch.setattr(compiled, "sizes_in_band", moved)
    assert judged() != right


def test_the_judgement_is_the_same_on_both_engines(monkeypatch):
    from megatron_nca.data import fingerprint as module

    right = judged()
    monkeypatch.setattr(module, "NCASource", lambda config, seed: NCASource(config, seed, engine="reference"))
    assert judged() == right


def test_an_entry_without_a_band_judges_nothing():
    assert judged(parse_entry("nca:gzip=none")) == with_complexity("samples", [], 1)


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
