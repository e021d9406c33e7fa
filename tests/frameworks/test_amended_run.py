"""A run of text whose data path is changed twice, killed and resumed in other worlds: nothing is lost, nothing repeated."""

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from megatron_nca.rehearsal.checkouts import Checkout
from megatron_nca.rehearsal.megatron_lm import Run
from tests.conftest import write_text
from tests.frameworks.test_megatron_lm import EXACT, PRINTED

pytestmark = pytest.mark.slow

BATCH, ITERATIONS = 8, 16
FIRST, SECOND = 4, 10
"""Iterations after which the data path changes."""
AMENDED = "--nca-amend-curriculum"
READER = Path(__file__).parent / "reading.py"
PROJECT = READER.parents[2]


@dataclass(frozen=True)
class Watched(Checkout):
    """A checkout whose script is run by the reader."""

    @property
    def script(self):
        return READER


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return {name: write_text(folder / name.lower(), 120, seed, 255) for seed, name in enumerate("ABC")}


@pytest.fixture
def paths(texts):
    words = {
        0: "phase: 0.7 A 0.3 B",
        FIRST: "phase: 0.4 A 0.6 B",
        SECOND: "phase:tokens=1280 0.5 A 0.5 B phase: 0.4 A 0.3 B 0.3 C",
    }
    return {step: [texts.get(word, word) for word in path.split()] for step, path in words.items()}


class History:
    """Starts of one run, in one folder of checkpoints."""

    def __init__(self, checkout, folder):
        self.checkout, self.folder = checkout, folder
        self.losses, self.printed = {}, ""

    def start(self, path, *flags, kill=None, **world):
        number = len(list(self.folder.glob("start*")))
        saved = ("--save", self.folder / "checkpoint", "--load", self.folder / "checkpoint", "--save-interval", 2)
        data = ("--data-path", *path, "--train-iters", ITERATIONS, "--eval-iters", 0, "--num-workers", 0)
        words = (*data, *EXACT, *saved, "--ckpt-format", "torch_dist", *flags)
        environment = {
            "PRETRAIN": str(self.checkout.script), "READ": str(self.folder / "read"),
            "PYTHONPATH": f"{self.checkout.path}:{PROJECT}",
        }  # fmt: skip
        run = Run(Watched(self.checkout.path), tuple(map(str, words)), environment=environment)
        folder = self.folder / f"start{number}"
        run = replace(run, **world)
        log = run.kill_at(kill, folder) if kill else run.complete(folder)
        self.losses |= log.losses
        self.printed = (folder / "rank0.log").read_text()

    def read(self):
        """Return the digest of what every position was, and the (samples asked, index) of every digest by text."""
        positions, found = defaultdict(set), defaultdict(dict)
        for line in (self.folder / "read").read_text().splitlines():
            kind, index, digest, *rest = line.split()
            if kind == "position":
                positions[int(index)].add(digest)
            else:
                found[rest[1]][digest] = (int(rest[0]), int(index))
        return positions, found


def test_a_history_with_kills_is_the_history_without(checkout, paths, texts, tmp_path):
    for name in ("plain", "killed"):
        (tmp_path / name).mkdir()
    plain = History(checkout, tmp_path / "plain")
    plain.start(paths[0], "--exit-interval", FIRST)
    plain.start(paths[FIRST], AMENDED, "--exit-interval", SECOND)
    plain.start(paths[SECOND], AMENDED)
    assert f"{texts['C']}: 0 samples (0 tokens) so far" in plain.printed

    killed = History(checkout, tmp_path / "killed")
    killed.start(paths[0], kill=FIRST + 1)
    killed.start(paths[FIRST], AMENDED, kill=7, tensor_parallel=2)
    killed.start(paths[FIRST], kill=SECOND + 1, data_parallel=2)
    killed.start(paths[SECOND], AMENDED, kill=13)
    killed.start(paths[SECOND], pipeline_parallel=2)

    # A process's second line is a mean of two, from 0.16 on.
    means = {2, FIRST + 2, SECOND + 2}
    assert set(plain.losses) | means == set(range(1, ITERATIONS + 1))
    assert len(plain.losses.keys() & killed.losses.keys()) > ITERATIONS // 2
    for iteration, loss in killed.losses.items():
        assert loss == pytest.approx(plain.losses.get(iteration, loss), abs=PRINTED), iteration

    positions, found = plain.read()
    again, _ = killed.read()
    whole = range(ITERATIONS * BATCH)
    assert all(len(positions[position]) == 1 for position in whole), "one sample a position"
    digests = [next(iter(positions[position])) for position in whole]
    assert len(set(digests)) == len(whole), "no sample twice"
    assert len(digests) == len(positions)
    # What a start had read and lost with its kill is read again by the next, or by the changed data path another.
    assert all(digests[position] in again[position] for position in whole)
    for text in texts.values():
        read = [found[text][digest] for digest in digests if digest in found[text]]
        links = list(dict.fromkeys(asked for asked, _ in read))
        for asked in links:
            indices = [index for link, index in read if link == asked]
            assert indices == list(range(len(indices))), f"{text}: in order, from its first"
        order = [links.index(asked) for asked, _ in read]
        assert order == sorted(order), f"{text}: a dataset after the other"
