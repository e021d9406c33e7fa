from types import SimpleNamespace

import pytest

from megatron_nca.training.extra_state import VARIABLE, advice, is_refused

DELAYED = SimpleNamespace(fp8="hybrid", fp8_recipe="delayed")


@pytest.mark.parametrize("version", ["2.16.1", "2.17.1", "2.17.1+abc123", "2.20.2", "3.0.0"])
def test_versions_that_refuse(version):
    assert is_refused(version, {})
    assert not is_refused(version, {VARIABLE: "1"})


@pytest.mark.parametrize("version", ["1.13.0", "2.11.0", "2.14.1", "2.16.0", "2.17.0", "2.17.0+2.20"])
def test_versions_that_load(version):
    assert not is_refused(version, {})


def test_a_launch_that_would_not_resume_is_told_what_to_set():
    calls = advice(DELAYED, "2.17.1", {})
    assert calls.startswith("Transformer Engine 2.17.1 will refuse to resume this run")
    assert f"Set {VARIABLE}=1" in calls


def test_without_a_version_at_hand_the_versions_are_named():
    assert "2.16.1, and from 2.17.1 on, will refuse" in advice(DELAYED, None, {})


@pytest.mark.parametrize(
    "args",
    [
        SimpleNamespace(),
        SimpleNamespace(fp8=None, fp8_recipe="delayed"),
        SimpleNamespace(fp8="hybrid", fp8_recipe="tensorwise"),
        SimpleNamespace(fp8="e4m3", fp8_recipe="blockwise"),
    ],
)
def test_what_keeps_no_pickle_is_told_nothing(args):
    assert advice(args, "2.17.1", {}) is None


def test_a_recipe_that_is_not_named_is_delayed():
    assert advice(SimpleNamespace(fp8_format="hybrid"), "2.20.2", {})


def test_a_launch_that_has_set_it_is_told_nothing():
    assert advice(DELAYED, "2.17.1", {VARIABLE: "1"}) is None
