"""NeMo's recipes with ``nca:`` entries: overridden, built, and read through their own data module."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("nemo", reason="needs NeMo 2.7; make test-nemo brings it")

import fiddle
import nemo_run as run
from megatron.core import num_microbatches_calculator as calculator
from nemo.collections import llm
from nemo.collections.llm.gpt.data import pre_training
from nemo.collections.llm.recipes.precision.mixed_precision import bf16_with_fp8_mixed
from nemo.utils import AppState

from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.frameworks.nemo import NCADataModule, with_nca

RECIPES = ["llama3_8b", "llama3_70b", "nemotron3_8b", "nemotron4_15b", "mixtral_8x7b"]
ENTRY = "nca:tokens=5000"
SMALL = {"seq_length": 1024, "global_batch_size": 4, "micro_batch_size": 1, "num_workers": 0, "split": "90,5,5"}


def recipe_of(name):
    return getattr(llm, name).pretrain_recipe(name=name)


@pytest.fixture
def setup(process_group):
    """Set a data module up as Lightning does for a run of ten steps."""

    def set_up(data):
        AppState().data_parallel_size = 1
        strategy = SimpleNamespace(cluster_environment=SimpleNamespace(global_rank=lambda: 0))
        limits = {"max_steps": 10, "val_check_interval": 5, "limit_val_batches": 1, "limit_test_batches": 1}
        data.trainer = SimpleNamespace(strategy=strategy, callbacks=[], global_step=0, **limits)
        data.setup()
        return data

    yield set_up
    calculator.unset_num_microbatches_calculator()


@pytest.mark.parametrize("name", RECIPES)
def test_one_line_overrides_a_recipe_and_keeps_the_rest_of_it(name, text):
    recipe = recipe_of(name)
    recipe.trainer.plugins = bf16_with_fp8_mixed()
    before = recipe.data.seq_length, recipe.data.global_batch_size, recipe.data.micro_batch_size
    with_nca(recipe, "nca:tokens=164M", text)
    assert (recipe.data.seq_length, recipe.data.global_batch_size, recipe.data.micro_batch_size) == before
    assert recipe.data.paths == ["nca:tokens=164M", text]
    assert recipe.trainer.plugins.fp8 == "hybrid"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_data_module_gives_megatrons_samples_bit_for_bit(name, text, tokenizer, build, setup):
    recipe = with_nca(recipe_of(name), ENTRY, text, **SMALL)
    recipe.data.tokenizer = tokenizer
    data = setup(fiddle.build(recipe.data))
    expected = build([ENTRY, text], sizes=(40, 4, 4), sequence_length=1024)[0]
    # 5,000 tokens are 4.9 samples: the second batch of four ends the phase.
    batches = list(data.train_dataloader())[:12]
    assert len(batches) == 12
    for position, batch in enumerate(batches):
        for key in ("tokens", "labels", "loss_mask", "position_ids"):
            assert np.array_equal(batch[key][0].numpy(), expected[position][key].numpy()), (position, key)
    assert data.callback.run.plan.switch == 8


def test_the_plain_data_module_takes_entries_once_registered(text, tokenizer, setup):
    from megatron_nca.frameworks.nemo import register

    register()
    data = pre_training.PreTrainingDataModule(paths=[ENTRY, text], tokenizer=tokenizer, **SMALL)
    assert len(setup(data)._train_ds) == 40


def test_a_text_that_is_missing_beside_an_entry_is_refused_where_all_ranks_look_for_it(tokenizer, setup):
    data = NCADataModule([ENTRY, "/no/such/text"], tokenizer=tokenizer, **SMALL)
    with pytest.raises(CurriculumError, match=r"has no file /no/such/text\.idx"):
        setup(data)


def test_other_paths_are_still_checked_by_nemo():
    with pytest.raises(FileNotFoundError, match="/no/such/text"):
        NCADataModule({"train": [ENTRY], "validation": ["/no/such/text"], "test": ["/no/such/text"]})


def test_phases_alone_come_before_the_recipes_own_paths(text, other_text):
    recipe = recipe_of("llama3_8b")
    recipe.data = run.Config(pre_training.PreTrainingDataModule, paths=["0.7", text, "0.3", other_text])
    with_nca(recipe, "nca:tokens=1M")
    assert recipe.data.paths == ["1", "nca:tokens=1M", "0.7", text, "0.3", other_text]


def test_splits_of_their_own_stay_as_they_are(text, other_text):
    recipe = recipe_of("llama3_8b")
    paths = {"train": [text], "validation": [other_text], "test": [other_text]}
    recipe.data = run.Config(pre_training.PreTrainingDataModule, paths=paths)
    with_nca(recipe, "nca:tokens=1M")
    assert recipe.data.paths == {**paths, "train": ["nca:tokens=1M", text]}


def test_mock_data_is_refused_where_no_text_is_given():
    with pytest.raises(NCAError, match=r"MockDataModule without paths.*give the text too"):
        with_nca(recipe_of("llama3_8b"), "nca:tokens=1M")


def test_a_second_override_is_refused(text):
    recipe = with_nca(recipe_of("llama3_8b"), "nca:tokens=1M", text)
    with pytest.raises(NCAError, match="overridden already"):
        with_nca(recipe, "nca:tokens=2M")


def test_a_recipe_without_data_is_refused():
    recipe = recipe_of("llama3_8b")
    recipe.data = None
    with pytest.raises(NCAError, match="the recipe has no data"):
        with_nca(recipe, "nca:tokens=1M")


def test_a_data_path_without_entry_and_an_unknown_argument_are_refused(text):
    with pytest.raises(NCAError, match="no nca: entry"):
        with_nca(recipe_of("llama3_8b"), text)
    with pytest.raises(NCAError, match="nca_learning_rate= is no argument"):
        with_nca(recipe_of("llama3_8b"), "nca:", nca_learning_rate=1)


def test_a_growing_batch_is_refused(text, tokenizer, setup):
    data = NCADataModule([ENTRY, text], tokenizer=tokenizer, rampup_batch_size=[2, 2, 8], **SMALL)
    with pytest.raises(NCAError, match="rampup_batch_size"):
        setup(data)


def at_step_1(data):
    """The trainer of a data module, as a checkpoint of the first step leaves it."""
    data.trainer.global_step = 1
    # NeMo's own count needs its strategy.
    data.data_sampler.compute_consumed_samples = lambda steps: 4
    return data.trainer


def test_a_checkpoint_of_another_curriculum_is_refused(text, tokenizer, setup):
    first = setup(NCADataModule([ENTRY, text], tokenizer=tokenizer, **SMALL))
    state = first.callback.state_dict()
    other = setup(NCADataModule(["nca:tokens=9000", text], tokenizer=tokenizer, **SMALL))
    other.callback.load_state_dict(state)
    at_step_1(other)
    with pytest.raises(NCAError, match=r"tokens=5000(?s:.)*tokens=9000(?s:.)*nca_override_curriculum=True"):
        other.callback.restore()


def test_a_checkpoint_without_curriculum_must_be_placed(text, tokenizer, setup):
    data = setup(NCADataModule([ENTRY, text], tokenizer=tokenizer, **SMALL))
    at_step_1(data)
    with pytest.raises(NCAError, match="nca_resume_as"):
        data.callback.restore()
    with pytest.raises(NCAError, match="must be one of before-switch, after-switch"):
        NCADataModule([ENTRY, text], nca_resume_as="before")


def test_the_command_line_takes_the_factory(text, tmp_path):
    nemo = Path(sys.executable).with_name("nemo")
    data = ["data=nca(tokenizer='/tok')", f"data.paths=['nca:tokens=164M','{text}']"]
    command = [nemo, "llm", "pretrain", "--factory", "llama3_8b", *data]
    shown = subprocess.run(
        [*map(str, command), "data.nca_lr=1e-4", "--dryrun", "-y"], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "NCADataModule" in shown.stdout
    assert "nca:tokens=164M" in shown.stdout
    assert "AutoTokenizer" in shown.stdout


def test_the_example_names_the_tokenizer_of_its_text(monkeypatch):
    """Without one NeMo takes GPT-2's, and gives the model a vocabulary that the text's ids leave."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples/nemo")
    import llama3_8b

    recipe = llama3_8b.make_recipe("/data/text_document", "/data/tokenizer", "/results")
    assert recipe.data.paths == ["nca:tokens=164M", "/data/text_document"]
    assert recipe.data.tokenizer.pretrained_model_name == "/data/tokenizer"
    assert recipe.trainer.plugins.fp8 == "hybrid"


def test_the_papers_arms_are_the_same_text_in_its_tokenizer_with_its_nca_before_it_and_without(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples/paper")
    import nemo_pretrain as paper

    nca, text = paper.make_recipe("/data/owt", "/results"), paper.make_recipe("/data/owt", "/results", nca="")
    assert nca.data.paths == ["nca:tokens=164M,batch=32", "/data/owt"]
    assert text.data.paths == ["/data/owt"]
    assert nca.data.nca_lr == 1e-4
    assert nca.trainer.max_steps - text.trainer.max_steps == 5005
    for recipe in (nca, text):
        assert recipe.data.tokenizer.pretrained_model_name == "gpt2"
        assert (recipe.model.config.num_layers, recipe.data.global_batch_size) == (24, 512)


def test_neMo_without_llm_is_told_where_to_go(tmp_path):  # noqa: N802
    (tmp_path / "nemo").mkdir()
    (tmp_path / "nemo/__init__.py").write_text('__version__ = "3.0.0"\n')
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import megatron_nca.frameworks.nemo"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert failed.returncode
    assert "EnvironmentMismatchError" in failed.stderr
    assert "Megatron-Bridge" in failed.stderr
