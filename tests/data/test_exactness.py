"""The same sample at every global position, whatever reads it."""

import json
import os
import subprocess
import sys

import pytest

from tests.data.loading import SAMPLES

ALONE = (1, 1, 0)
LAYOUTS = [(1, 4, 1), (2, 1, 3), (2, 4, 0), (4, 1, 1), (4, 4, 3)]
"""(world size, micro-batch, data-loader workers)"""


def positions_and_hashes(folder, world_size, micro_batch, workers):
    read = {}
    for rank in range(world_size):
        part = json.loads((folder / f"{world_size}-{micro_batch}-{workers}" / f"rank{rank}.json").read_text())
        assert not read.keys() & part.keys(), "no position is read twice"
        read.update(part)
    return {int(position): value for position, value in read.items()}


@pytest.mark.slow
def test_every_layout_reads_the_same_sample_at_every_position(tmp_path, text):
    command = [sys.executable, "-m", "tests.data.loading", json.dumps([ALONE, *LAYOUTS]), text, str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"}, timeout=600)
    expected = positions_and_hashes(tmp_path, *ALONE)
    assert sorted(expected) == list(range(SAMPLES))
    assert len(set(expected.values())) == SAMPLES
    for layout in LAYOUTS:
        assert positions_and_hashes(tmp_path, *layout) == expected
