"""A band that holds too few rules, or a process that takes too long, is refused before anything is built on it."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton import compiled, production
from megatron_nca.automaton.config import DOMAIN_BANDS
from megatron_nca.automaton.cost import probe_cost
from megatron_nca.data.band import KNOWN, check_band, count_rules
from megatron_nca.data.entry import MAX_COST, parse_entry
from megatron_nca.errors import EntryError

ROOT = Path(__file__).parents[2]


def refusal(text):
    with pytest.raises(EntryError) as caught:
        check_band(parse_entry(text))
    return str(caught.value)


@pytest.mark.parametrize(
    "text", ["nca:", "nca:domain=code", "nca:gzip=none,patch=1", "nca:gzip=0.6-1.0", "nca:gzip=0.19-0.3,colors=16"]
)
def test_bands_that_hold_rules_are_taken(text):
    check_band(parse_entry(text))


@pytest.mark.parametrize("text", ["nca:patch=1", "nca:colors=2", "nca:gzip=0.666-0.99", "nca:gzip=0.98-0.99"])
def test_a_band_without_rules_is_refused_with_one_that_has_some(text):
    message = refusal(text)
    assert "0 of 1,600 random rules" in message
    assert "rare=yes" not in message
    band = re.search(r"gzip=([\d.]+-[\d.]+) holds", message)[1]
    settings = text.partition("gzip")[0].removesuffix(",")
    check_band(parse_entry(settings + ("," if not settings.endswith(":") else "") + f"gzip={band}"))


def test_a_rare_band_is_refused_with_its_speed_unless_asked_for():
    message = refusal("nca:gzip=0.65-0.66")
    assert re.search(r"a core would make about [\d,]+ tokens a second", message)
    assert "add rare=yes" in message
    check_band(parse_entry("nca:gzip=0.65-0.66,rare=yes"))
    check_band(parse_entry("nca:rare=no"))


def test_rare_does_not_mean_never():
    assert "rare=yes to take" not in refusal("nca:gzip=0.666-0.99,rare=yes")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nca:burn_in=1048576", "burn_in=1048576: makes one candidate rule take about 2.7 s"),
        ("nca:gzip=none,burn_in=1048576", "burn_in=1048576: makes two frames of a trajectory"),
        ("nca:domain=auto:/a,burn_in=1048576", "burn_in=1048576"),
        ("nca:grid=256,trajectory=40000", "grid=256: .* or gzip=none"),
    ],
)
def test_what_takes_too_long_is_told_by_the_entry_alone(text, named):
    with pytest.raises(EntryError, match=named):
        parse_entry(text)


def test_the_costs_that_are_taken_reach_well_beyond_the_papers():
    assert probe_cost(parse_entry("nca:").config) * 100 < MAX_COST
    parse_entry("nca:burn_in=9000")
    parse_entry("nca:grid=64,trajectory=4096")


def test_no_call_of_the_kernel_takes_long(monkeypatch):
    taken = []
    compiled.compile_kernels()

    def timed(*arguments):
        begin = time.process_time()
        state = production.produce(*arguments)
        taken.append(time.process_time() - begin)
        return state

    monkeypatch.setattr(compiled, "produce", timed)
    for temperature in (0.0, 1e-4, 1.0):
        NCASource(NCAConfig(grid=64, patch=1, colors=16, temperature=temperature)).tokens(0, 4098 * 500)
        NCASource(NCAConfig(grid=128, patch=1, gzip=(0.01, 1.0), temperature=temperature)).tokens(0, 2)
    assert len(taken) > 6
    # A fifth of a second is usual; without a limit of its own a call takes minutes.
    assert max(taken) < 10.0


ENDLESS = """
from megatron_nca import NCAConfig, NCASource
NCASource(NCAConfig()).tokens(0, 1025)
source = NCASource(NCAConfig(burn_in=2**20, grid=64, temperature=1.0))
print("begun", flush=True)
{action}
"""


@pytest.mark.parametrize("action", ["source.tokens(0, 1025)", "source.probes([0])"])
def test_what_would_take_minutes_hears_a_signal(action):
    # A shell has its background jobs ignore Ctrl-C, and so all that they start.
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS.format(action=action)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in errors


def test_the_papers_processes_are_known_to_hold_enough():
    for domain in DOMAIN_BANDS:
        entry = parse_entry(f"nca:domain={domain}")
        assert entry.config in KNOWN
        count_rules(entry)


@pytest.mark.slow
def test_the_reference_judges_a_band_in_the_same_words():
    for text in ("nca:gzip=0.65-0.66", "nca:gzip=0.98-0.99"):
        with pytest.raises(EntryError) as caught:
            check_band(parse_entry(text), engine="reference")
        assert str(caught.value) == refusal(text)
