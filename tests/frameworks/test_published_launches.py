"""One entry added to Megatron-LM's own launches: each family of published cases goes through the switch, audited on every rank.

`docs/launches.md` has the table of what each version's cases came to, and how many cases stand behind each row.
"""

import re
from pathlib import Path

import pytest

from megatron_nca.rehearsal.checkouts import find_checkouts
from megatron_nca.rehearsal.megatron_lm import Run
from megatron_nca.rehearsal.scaling import has_transformer_engine, scale
from tests.frameworks import published

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/launches.md"
ITERATIONS, SWITCH = 8, 4
DATA = "nca:tokens=2048,grid=4,colors=3,gzip=none,trajectory=64"
"""2,048 tokens are four batches of eight samples of 64 tokens."""

OURS = (
    *("--seq-length", "64", "--max-position-embeddings", "64", "--train-iters", str(ITERATIONS), "--lr", "1e-3"),
    *("--min-lr", "1e-4", "--lr-decay-style", "cosine", "--lr-warmup-iters", "1", "--log-interval", "1", "--eval-iters", "0"),
    *("--eval-interval", "1000", "--split", "90,5,5", "--make-vocab-size-divisible-by", "64"),
)


def launches():
    """A case of each family of every checkout, or what says why there is none."""
    missing = None
    if not find_checkouts():
        missing = "MEGATRON_LM names no checkout of Megatron-LM"
    elif not has_transformer_engine():
        missing = "Transformer Engine's Python is not installed; make test-te brings it"
    if missing is not None:
        yield pytest.param(None, marks=pytest.mark.skip(reason=missing), id="none")
        return
    for checkout in find_checkouts():
        for family, cases in published.by_family(published.read_cases(checkout)).items():
            if cases:
                reason = published.why_not(family, checkout)
                marks = () if reason is None else pytest.mark.skip(reason=reason)
                yield pytest.param((checkout, cases[0]), id=f"{checkout.path.name}-{family}", marks=marks)


@pytest.mark.parametrize("launch", launches())
def test_a_published_launch_goes_through_the_switch(launch, corpus, tmp_path):
    checkout, case = launch
    go(checkout, case, corpus, tmp_path)


def go(checkout, case, corpus, folder):
    """Run a case through the switch; returns what the audits of its first rank say."""
    scaled = scale(case, checkout)
    data = ("--data-path", DATA, str(corpus))
    run = Run(
        checkout,
        (*OURS, *scaled.flags, *data),
        script=scaled.script,
        model=(),
        environment=scaled.environment,
        audited=True,
        **scaled.layout,
    )
    log = run.complete(folder)
    outputs = [(folder / f"rank{rank}.log").read_text() for rank in range(run.world_size)]
    for rank, output in enumerate(outputs):
        assert re.search(rf"audit: rank {rank}: \d+ new, \d+ masters equal, [1-9]\d* moments zero", output)
        assert "audit: nothing went back after a step" in output
    assert max(log.losses) == ITERATIONS
    return re.findall(r"audit: (.*)", outputs[0])


def rows():
    """Cells of the table in the docs by family, the header's first."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines)}


def test_the_table_has_every_family_and_no_other():
    assert set(rows()) == {"family", *published.FAMILIES}


def test_the_table_counts_the_cases(checkout):
    header = rows()["family"]
    minor = "{}.{}.".format(*checkout.version)
    name = next((name for name in header if name.startswith(minor)), "main" if minor == "0.20." else None)
    if name is None:
        pytest.skip(f"the table has no column of {minor}")
    counts = {family: len(cases) for family, cases in published.by_family(published.read_cases(checkout)).items()}
    shown = {family: int(cells[header.index(name)].split()[0]) for family, cells in rows().items() if family != "family"}
    assert shown == counts
