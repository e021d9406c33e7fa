"""``with_nca`` on every framework that has recipes: one line, and the recipe's own data follow."""

import importlib
from types import SimpleNamespace

import pytest
from megatron.core.datasets.utils import get_blend_from_list

from megatron_nca.errors import NCAError
from megatron_nca.stacks import BRIDGE, NEMO
from tests.contract.drivers import DRIVERS
from tests.contract.drivers.stand_ins import provide

PHASES = ("nca:tokens=1M", "nca:tokens=2M,domain=code")


class NeMoRecipes:
    """A recipe of NeMo-Run, whose data is a call that is not made yet."""

    stack = NEMO

    def __init__(self, cache):
        DRIVERS[NEMO.name](cache)
        provide("nemo_run")
        self.nemo_run = importlib.import_module("nemo_run")
        self.module = importlib.import_module("megatron_nca.frameworks.nemo")
        self.data_module = importlib.import_module("nemo.collections.llm.gpt.data.pre_training").PreTrainingDataModule

    def recipe(self, paths):
        return SimpleNamespace(data=self.nemo_run.Config(self.data_module, paths=paths, seq_length=64))

    def blend(self, recipe):
        assert recipe.data.__fn_or_cls__ is self.module.NCADataModule
        assert recipe.data.seq_length == 64
        return get_blend_from_list(recipe.data.paths)

    without_data = SimpleNamespace(data=None)


class BridgeRecipes:
    """A config of Bridge's."""

    stack = BRIDGE

    def __init__(self, cache):
        DRIVERS[BRIDGE.name](cache)
        self.module = importlib.import_module("megatron_nca.frameworks.megatron_bridge")

    def recipe(self, paths):
        blend = get_blend_from_list(paths) if paths else None
        return SimpleNamespace(dataset=SimpleNamespace(blend=blend, blend_per_split=None))

    def blend(self, recipe):
        return recipe.dataset.blend

    without_data = SimpleNamespace(dataset=None)


@pytest.fixture(params=[NeMoRecipes, BridgeRecipes], ids=lambda recipes: recipes.stack.name)
def recipes(request, one_rank, tmp_path):
    return request.param(tmp_path)


def test_phases_alone_come_before_the_recipes_own_data(recipes, text, other_text):
    recipe = recipes.module.with_nca(recipes.recipe([text, other_text]), *PHASES)
    assert recipes.blend(recipe) == ([*PHASES, text, other_text], None)


def test_phases_before_a_blend_leave_its_weights(recipes, text, other_text):
    recipe = recipes.module.with_nca(recipes.recipe(["0.7", text, "0.3", other_text]), *PHASES)
    assert recipes.blend(recipe) == ([*PHASES, text, other_text], [1.0, 1.0, 0.7, 0.3])


def test_a_whole_data_path_takes_the_place_of_the_recipes(recipes, text, other_text):
    recipe = recipes.module.with_nca(recipes.recipe([text]), "0.1", "nca:", "0.9", other_text)
    assert recipes.blend(recipe) == (["nca:", other_text], [0.1, 0.9])


def test_nothing_to_add_nothing_to_follow_and_twice_are_refused(recipes, text):
    with_nca = recipes.module.with_nca
    with pytest.raises(NCAError, match="has no nca: entry and no phase:"):
        with_nca(recipes.recipe([text]), text)
    with pytest.raises(NCAError, match=r"so nothing follows 'nca:tokens=2M,domain=code'; give the text too, as in with_nca\("):
        with_nca(recipes.recipe(None), *PHASES)
    with pytest.raises(NCAError, match="overridden already"):
        with_nca(with_nca(recipes.recipe([text]), *PHASES), *PHASES)
    with pytest.raises(NCAError, match="with_nca: "):
        with_nca(recipes.without_data, *PHASES)


def test_splits_of_their_own_stay_as_they_are_but_for_training(one_rank, text, other_text, tmp_path):
    nemo, bridge = NeMoRecipes(tmp_path), BridgeRecipes(tmp_path)
    paths = {"train": [text], "validation": [other_text], "test": [other_text]}
    recipe = nemo.module.with_nca(nemo.recipe(paths), PHASES[0])
    assert recipe.data.paths == {**paths, "train": [PHASES[0], text]}
    cfg = bridge.recipe(None)
    cfg.dataset.blend_per_split = [([text], None), ([other_text], None), ([other_text], None)]
    bridge.module.with_nca(cfg, PHASES[0])
    assert cfg.dataset.blend_per_split == [([PHASES[0], text], None), ([other_text], None), ([other_text], None)]


def test_nemos_settings_are_those_of_its_data_module(one_rank, text, tmp_path):
    nemo = NeMoRecipes(tmp_path)
    recipe = nemo.module.with_nca(nemo.recipe([text]), PHASES[0], nca_lr=1e-4, split="99,1,0")
    assert (recipe.data.nca_lr, recipe.data.split) == (1e-4, "99,1,0")
    with pytest.raises(NCAError, match="with_nca: nca_rate= is no argument of NCADataModule"):
        nemo.module.with_nca(nemo.recipe([text]), PHASES[0], nca_rate=1e-4)


def test_nemos_command_line_finds_a_factory(one_rank, tmp_path):
    NeMoRecipes(tmp_path)
    made = importlib.import_module("megatron_nca.frameworks.nemo_cli").nca(seq_length=128)
    assert (made.paths, made.seq_length, made.global_batch_size) == (["nca:"], 128, 512)
