"""The compiled engine makes the reference's trajectories, bit for bit, wherever and however it is asked for them."""

import json
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_nca import NCAConfig, NCASource
from megatron_nca.automaton.complexity import gzip_ratio
from megatron_nca.automaton.production import produce

ROOT = Path(__file__).parents[2]
SETTINGS = sorted((Path(__file__).parents[1] / "data" / "reference").glob("*.npz"))
BANDED = NCAConfig(gzip=(0.5, 1.0))
MAX_PATCH_TOKENS = 2**31 - 3


def released_config(path):
    stored_config = json.loads(str(np.load(path)["config"]))
    return NCAConfig(**{name: value for name, value in stored_config.items() if name not in ("frames", "trajectories")})


def pair(config, **arguments):
    return NCASource(config, **arguments), NCASource(config, engine="reference", **arguments)


def wide_band(config):
    """Return the middle of the config's ratios, where a search soon ends and is not always over at once."""
    probes = NCASource(config, seed=99).grids_batch(range(12), 10)
    ratios = np.sort([gzip_ratio(config, grids) for grids in probes])
    return float(ratios[3]) - 1e-6, float(ratios[9]) + 1e-6


@st.composite
def configs(draw):
    colors = draw(st.integers(2, 64))
    largest = max(patch for patch in range(1, 5) if colors ** (patch * patch) <= MAX_PATCH_TOKENS)
    patch = draw(st.integers(1, largest))
    grid = patch * draw(st.integers(-(-4 // patch), 64 // patch))
    # The reference draws noise for every cell: few steps of the large grids keep an example short.
    longest = 8 if grid <= 20 else 2
    return NCAConfig(
        grid=grid,
        colors=colors,
        patch=patch,
        temperature=draw(st.just(0.0) | st.sampled_from([1e-4, 0.1, 10.0]) | st.floats(1e-4, 10.0)),
        identity_bias=draw(st.just(0.0) | st.floats(-1, 1) | st.floats(-10, 10)),
        burn_in=draw(st.integers(0, longest + longest // 2)),
        dt=draw(st.integers(1, longest)),
    )


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_the_released_codes_settings(path):
    compiled, reference = pair(released_config(path), seed=3)
    np.testing.assert_array_equal(compiled.grids_batch(range(40), 12), reference.grids_batch(range(40), 12))


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    config=configs(),
    seed=st.integers(0, 2**31),
    split=st.sampled_from(["train", "valid", "test"]),
    rules=st.none() | st.integers(1, 5),
    indices=st.lists(st.integers(0, 20) | st.integers(0, 2**48 - 1), min_size=1, max_size=2),
    frames=st.integers(1, 3),
)
def test_random_settings(config, seed, split, rules, indices, frames):
    compiled, reference = pair(config, seed=seed, split=split, rules=rules)
    np.testing.assert_array_equal(compiled.grids_batch(indices, frames), reference.grids_batch(indices, frames))
    length = frames * config.frame_length - 1
    np.testing.assert_array_equal(compiled.tokens_batch(indices, length), reference.tokens_batch(indices, length))


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(config=configs().filter(lambda config: config.grid <= 20), seed=st.integers(0, 2**31))
def test_random_settings_in_a_band(config, seed):
    banded = NCAConfig(**{**vars(config), "gzip": wide_band(config)})
    candidates, first = np.arange(24), np.zeros(24, dtype=np.int64)
    compiled, reference = pair(banded, seed=seed)
    accepted = compiled.engine.accepted(candidates, first)
    np.testing.assert_array_equal(accepted, reference.engine.accepted(candidates, first))
    # Rules that the first candidate gives, and the start of the search for one that it does not.
    rejected = candidates[~accepted][:4]
    later = np.ones(len(rejected), dtype=np.int64)
    np.testing.assert_array_equal(compiled.engine.accepted(rejected, later), reference.engine.accepted(rejected, later))
    indices = candidates[accepted][:3]
    np.testing.assert_array_equal(compiled.grids_batch(indices, 2), reference.grids_batch(indices, 2))


@pytest.mark.parametrize("band", [(0.5, 1.0), (0.3, 0.4), (0.0, 0.2)], ids=str)
def test_the_bands_of_the_paper(band):
    compiled, reference = pair(NCAConfig(gzip=band), seed=8)
    np.testing.assert_array_equal(compiled.tokens_batch(range(12), 300), reference.tokens_batch(range(12), 300))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 100.0, "colors": 64},
        {"identity_bias": 10.0, "temperature": 1.0},
        {"identity_bias": -10.0, "colors": 64},
        {"grid": 256, "burn_in": 1},
        {"grid": 2, "patch": 2, "burn_in": 300},
    ],
    ids=str,
)
def test_the_ends_of_the_ranges(settings):
    compiled, reference = pair(NCAConfig(**settings))
    np.testing.assert_array_equal(compiled.grids_batch([0, 2**48 - 1], 2), reference.grids_batch([0, 2**48 - 1], 2))


def test_a_trajectory_that_stops_stays_as_it_is():
    config = NCAConfig(burn_in=0, dt=50)
    compiled, reference = pair(config)
    grids = compiled.grids_batch(range(60), 4)
    np.testing.assert_array_equal(grids, reference.grids_batch(range(60), 4))
    assert (grids[:, 2] == grids[:, 3]).all(axis=(1, 2)).any()


def test_batches_in_any_order():
    source = NCASource(BANDED)
    order = np.random.default_rng(0).permutation(30)
    alone = np.stack([source.tokens(int(index), 200) for index in order])
    np.testing.assert_array_equal(source.tokens_batch(order, 200), alone)
    np.testing.assert_array_equal(source.tokens_batch(order[::-1], 200), alone[::-1])


def test_threads_at_once():
    source = NCASource(BANDED)
    alone = [source.tokens(index, 400) for index in range(40)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda index: source.tokens(index, 400), range(40)))
    np.testing.assert_array_equal(together, alone)


def test_threads_that_construct_at_once():
    with ThreadPoolExecutor(4) as threads:
        tokens = list(threads.map(lambda _: NCASource(BANDED, seed=5).tokens(0, 100), range(8)))
    np.testing.assert_array_equal(tokens, [tokens[0]] * 8)


def read_and_count(source, first, results):
    before = compilations()
    tokens = source.tokens_batch(range(first, first + 10), 300)
    results.put((first, tokens, compilations() - before))


def compilations():
    """Signatures that were compiled or loaded in this process."""
    return len(produce.signatures)


def in_processes(source, method, firsts):
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    processes = [context.Process(target=read_and_count, args=(source, first, results)) for first in firsts]
    for process in processes:
        process.start()
    answers = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return answers


def test_forked_processes_at_once_compile_nothing():
    source = NCASource(BANDED)
    for first, tokens, compiled in in_processes(source, "fork", (0, 10, 20)):
        np.testing.assert_array_equal(tokens, source.tokens_batch(range(first, first + 10), 300))
        assert compiled == 0


def test_a_spawned_process():
    source = NCASource(NCAConfig(gzip=(0.5, 1.0), temperature=0.05), seed=77, split="valid", rules=9)
    ((_, tokens, compiled),) = in_processes(source, "spawn", (3,))
    np.testing.assert_array_equal(tokens, source.tokens_batch(range(3, 13), 300))
    assert compiled == 0, "unpickling must load the kernels from the cache, as construction does"


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_a_pickled_source_is_small_and_the_same(protocol):
    source = NCASource(BANDED, seed=4, stream=2)
    pickled = pickle.dumps(source, protocol)
    np.testing.assert_array_equal(pickle.loads(pickled).tokens(6, 300), source.tokens(6, 300))
    assert len(pickled) < 2000


@pytest.mark.parametrize("kind", ["strided", "read-only", "int32", "list", "range"])
def test_no_form_of_the_indices_compiles_anew(kind):
    whole = np.arange(12)
    forms = {"strided": whole[::2], "int32": whole[:6].astype(np.int32), "list": [0, 3], "range": range(5)}
    frozen = whole.copy()
    frozen.flags.writeable = False
    indices = forms.get(kind, frozen)
    compiled, reference = pair(NCAConfig())
    before = compilations()
    np.testing.assert_array_equal(compiled.tokens_batch(indices, 80), reference.tokens_batch(indices, 80))
    assert compilations() == before


def test_an_empty_batch():
    assert NCASource(BANDED).tokens_batch([], 100).shape == (0, 100)


def test_memory_does_not_grow():
    source = NCASource(BANDED)
    process = psutil.Process()
    source.tokens_batch(range(20), 1025)
    before = process.memory_info().rss
    for index in range(300):
        source.tokens(index, 1025)
    assert process.memory_info().rss - before < 30 * 2**20


def test_the_kernels_are_right_as_python_too():
    """By which ``.ci/run`` sees the lines of them that are executed."""
    run = subprocess.run([sys.executable, "-m", "tests.automaton.interpreted"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
