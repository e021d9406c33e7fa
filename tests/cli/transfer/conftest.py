"""The transfer of a checkpoint that lies in `load`."""

import pytest

from tests.cli.transfer.by_hand import digests


@pytest.fixture
def load(tmp_path):
    return tmp_path / "nca"


@pytest.fixture
def transfer(succeed, tmp_path, load):
    """Transfer what lies in `load`; returns the new folder and what the command said. `load` must not change."""

    def call(*flags):
        before = digests(load)
        said = succeed("transfer", "--load", load, "--save", tmp_path / "start", *flags)
        assert digests(load) == before
        assert (tmp_path / "start" / "latest_checkpointed_iteration.txt").read_text() == "release"
        return tmp_path / "start", said

    return call
