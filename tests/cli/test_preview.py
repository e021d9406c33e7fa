from typing import Any

import numpy as np
import pytest
from PIL import Image

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.complexity import gzip_ratio
from megatron_nca.cli.pictures.looks import cell_palette

CODE = NCAConfig(gzip=(0.3, 0.4))


def test_a_picture_holds_the_cells_of_every_frame(succeed, tmp_path):
    path = tmp_path / "code.png"
    result = succeed("preview", "nca:domain=code", "--output", path, "--rules", 3, "--frames", 5)
    assert result["written"] == [str(path)]
    picture = np.asarray(Image.open(path).convert("RGB"))
    expected = cell_palette(10)[NCASource(CODE).grids(2, 5)[4]]
    # 8 pixels a cell, frames 104 apart; read in the middle of each cell.
    top, left = 108 + 2 * 104, 160 + 4 * 104
    drawn = picture[top + 4 : top + 96 : 8, left + 4 : left + 96 : 8]
    np.testing.assert_array_equal(drawn, expected)


def test_the_ratio_is_that_of_the_rules_own_probe(succeed, tmp_path):
    result = succeed("preview", "nca:domain=code", "--output", tmp_path / "a.png", "--rules", 20)
    ratios = [one["gzip_ratio"] for one in result["trajectories"]]
    assert all(0.3 < ratio < 0.4 for ratio in ratios)
    source = NCASource(CODE)
    assert ratios == [gzip_ratio(CODE, probe) for probe in source.probes(range(20))]


def test_an_animation_has_a_picture_a_frame(succeed, tmp_path):
    path = tmp_path / "a.gif"
    succeed("preview", "nca:", "--output", path, "--rules", 2, "--frames", 7)
    animation: Any = Image.open(path)
    assert (animation.n_frames, animation.info["loop"]) == (7, 0)
    expected = cell_palette(10)[NCASource(NCAConfig(gzip=(0.5, 1.0))).grids(0, 7)[6]]
    animation.seek(6)
    drawn = np.asarray(animation.convert("RGB"))[84 + 7 : 84 + 168 : 14, 28 + 7 : 28 + 168 : 14]
    np.testing.assert_array_equal(drawn, expected)


def test_the_terminal_shows_a_letter_a_cell(command):
    code, out, _ = command("preview", "nca:", "--text", "--rules", 1)
    assert code == 0
    grid = NCASource(NCAConfig(gzip=(0.5, 1.0))).grids(0, 1)[0]
    rows = [line.split("  ")[0] for line in out.splitlines()[5:17]]
    assert rows == ["".join(map(str, row)) for row in grid]


def test_colour_in_the_terminal_is_two_cells_a_character(command):
    _, out, _ = command("preview", "nca:grid=5,patch=1,gzip=none", "--text", "--color", "always", "--rules", 1, "--frames", 1)
    painted = [line for line in out.splitlines() if "▀" in line]
    assert [line.count("▀") for line in painted] == [5, 5, 5]
    assert all(line.endswith("\x1b[0m") for line in painted)


@pytest.mark.parametrize("colors", [2, 4, 10, 11, 16, 64])
def test_every_colour_of_a_palette_is_its_own(colors):
    assert len(np.unique(cell_palette(colors), axis=0)) == colors


@pytest.mark.parametrize(
    "entry", ["nca:colors=64,patch=1,gzip=none", "nca:grid=128,trajectory=10K,gzip=none", "nca:rules=2", "nca:dt=5"]
)
def test_other_processes_are_drawn_too(succeed, tmp_path, entry):
    for name in ("a.png", "a.gif"):
        succeed("preview", entry, "--output", tmp_path / name, "--rules", 3, "--frames", 3)
        Image.open(tmp_path / name).load()


def test_the_default_is_a_picture_here(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("preview", "nca:", "--rules", 1, "--frames", 1)
    assert (code, out) == (0, "wrote preview.png\n")
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nca:colours=3"], "is no key of an entry"),
        (["nca:", "--output", "a.jpeg"], "must end with .png or .gif"),
        (["nca:", "--output", "/no/such/folder/a.png"], "there is no folder"),
        (["nca:", "--rules", "1000"], "at most 64"),
        (["nca:", "--frames", "0"], "must be at least 1"),
        (["nca:colors=4", "--text"], "holds 86% of them; give that"),
        (["nca:", "--split", "dev"], "invalid choice"),
    ],
)
def test_bad_input_is_one_clear_error(fail, arguments, problem):
    assert problem in fail("preview", *arguments)
