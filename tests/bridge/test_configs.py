"""Bridge's dataset configs with ``nca:`` entries, built through its own provider, and its train state with a note."""

import importlib
import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("megatron.bridge") is None:
    pytest.skip("needs Megatron-Bridge; make test-bridge brings it", allow_module_level=True)

from megatron.bridge.data.utils import get_dataset_provider
from megatron.bridge.training.callbacks import CallbackManager
from megatron.bridge.training.config import GPTDatasetConfig
from megatron.bridge.training.state import TrainState
from megatron.bridge.training.utils import omegaconf_utils
from megatron.core import num_microbatches_calculator as calculator

import megatron_nca
from megatron_nca.errors import NCAError
from megatron_nca.frameworks.megatron_bridge import NCACallback, with_nca
from megatron_nca.patching import owner_of
from megatron_nca.training.record import RECORD
from megatron_nca.training.run import CustomLoop

# The package has a function of this name too.
pretrain = importlib.import_module("megatron.bridge.training.pretrain")

ENTRY = "nca:tokens=5000"


@pytest.fixture
def config(tokenizer, tmp_path):
    dataset = GPTDatasetConfig(
        seq_length=1024, random_seed=1234, split="90,5,5", path_to_cache=str(tmp_path), tokenizer=tokenizer,
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
        skip_getting_attention_mask_from_dataset=False,
    )  # fmt: skip
    return SimpleNamespace(dataset=dataset)


@pytest.fixture
def batches_of_four():
    calculator.init_num_microbatches_calculator(0, None, 4, 1, 1)
    yield
    calculator.unset_num_microbatches_calculator()


def datasets(config, sizes=(40, 4, 4)):
    config.dataset.finalize()
    return get_dataset_provider(config.dataset)(list(sizes), config.dataset)


@pytest.fixture(autouse=True)
def new_run():
    megatron_nca.register().attach(CustomLoop())


def plan():
    """The plan of the datasets built last."""
    return megatron_nca.register().plan


def test_its_provider_gives_megatrons_samples_bit_for_bit(config, text, build, process_group, batches_of_four):
    built = datasets(with_nca(config, ENTRY, text))[0]
    assert plan().switch == 8
    expected = build([ENTRY, text], sizes=(40, 4, 4), sequence_length=1024)[0]
    for position in range(12):
        for key in ("tokens", "labels", "loss_mask", "position_ids"):
            assert np.array_equal(built[position][key].numpy(), expected[position][key].numpy()), (position, key)


def test_phases_alone_come_before_the_configs_own_blend(config, text, other_text):
    config.dataset.blend = ([text, other_text], [0.7, 0.3])
    with_nca(config, "nca:tokens=1M")
    assert config.dataset.blend == (["nca:tokens=1M", text, other_text], [1.0, 0.7, 0.3])


@pytest.mark.parametrize("spelt", [str, list])
def test_phases_alone_come_before_the_configs_own_data_path(config, text, other_text, spelt):
    """As Bridge takes it since 0.4; before, it is an attribute that nobody else reads."""
    config.dataset.data_path = f"0.7 {text} 0.3 {other_text}" if spelt is str else ["0.7", text, "0.3", other_text]
    with_nca(config, "nca:tokens=1M")
    assert config.dataset.blend == (["nca:tokens=1M", text, other_text], [1.0, 0.7, 0.3])


def test_a_data_path_that_has_entries_is_not_overridden(config, text):
    config.dataset.data_path = f"nca:tokens=1M {text}"
    with pytest.raises(NCAError, match="overridden already"):
        with_nca(config, "nca:tokens=1M")


@pytest.mark.skipif(not hasattr(GPTDatasetConfig, "data_path"), reason="Bridge 0.3 takes no data path")
def test_a_data_path_of_its_own_takes_entries(config, text, build, process_group, batches_of_four):
    config.dataset.data_path = f"{ENTRY} {text}"
    built = datasets(config)[0]
    assert plan().switch == 8
    expected = build([ENTRY, text], sizes=(40, 4, 4), sequence_length=1024)[0]
    assert all(np.array_equal(built[n]["tokens"].numpy(), expected[n]["tokens"].numpy()) for n in (0, 7, 8, 11))


def test_mock_data_no_entry_and_a_second_override_are_refused(config, text):
    with pytest.raises(NCAError, match="means mock data"):
        with_nca(config, "nca:tokens=1M")
    with pytest.raises(NCAError, match="no nca: entry"):
        with_nca(config, text)
    with_nca(config, "nca:tokens=1M", text)
    with pytest.raises(NCAError, match="overridden already"):
        with_nca(config, "nca:tokens=2M")
    with pytest.raises(NCAError, match="reads no data path"):
        with_nca(SimpleNamespace(dataset=None), "nca:tokens=1M")


def test_the_record_travels_in_the_train_state(config, text, process_group, batches_of_four):
    datasets(with_nca(config, ENTRY, text))
    loaded = TrainState()
    loaded.load_state_dict(TrainState(consumed_train_samples=4).state_dict())
    assert getattr(loaded, RECORD) == megatron_nca.register().state_dict(4)
    assert getattr(loaded, RECORD)["given"] == [4, 0]


def test_without_a_curriculum_a_train_state_is_bridges_own():
    assert RECORD not in TrainState().state_dict()


@pytest.mark.parametrize("callbacks", [None, [], CallbackManager])
def test_every_pretrain_is_carried_across_the_switch_once(callbacks):
    megatron_nca.register()
    manager = pretrain.normalize_callbacks(callbacks() if callbacks is CallbackManager else callbacks)
    pretrain.normalize_callbacks(manager)
    for event in ("on_train_step_start", "on_train_step_end", "on_eval_end"):
        assert len(manager.list_callbacks(event)) == 1


def adapter():
    [method] = pretrain.normalize_callbacks(None).list_callbacks("on_train_step_start")
    return method.__self__


def test_options_of_a_callback_are_the_runs():
    of = adapter()
    pretrain.normalize_callbacks([NCACallback(optimizer="keep")])
    assert of._callback.optimizer == "keep"
    pretrain.normalize_callbacks([])
    assert of._callback is None


def test_options_given_twice_are_refused(recipe, monkeypatch):
    of = adapter()
    monkeypatch.setattr(of, "_overrides", None)
    omegaconf_utils.process_config_with_overrides(recipe, cli_overrides=["nca.lr=1e-4", "train.train_iters=9"])
    assert recipe.train.train_iters == 9
    assert of._overrides.lr == 1e-4
    with pytest.raises(NCAError, match="give one or the other"):
        pretrain.normalize_callbacks([NCACallback()])


def test_every_seam_of_bridge_is_there():
    from megatron_nca.frameworks.seams import installed, seams_of

    megatron_nca.register()
    for seam in seams_of("Megatron-Bridge"):
        importlib.import_module(seam.module)
    assert installed(seams_of("Megatron-Bridge")) == list(seams_of("Megatron-Bridge"))
    assert owner_of(TrainState, "state_dict") is megatron_nca.register()


# A recipe and what it would fetch of its model from the hub.
LLAMA = {"architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "rope_theta": 500000.0, "max_position_embeddings": 8192}
RECIPES = {
    "llama.llama3.llama3_8b": {
        **LLAMA, "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "llama.llama3.llama32_1b": {
        **LLAMA, "num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
    "llama.llama3.llama3_70b": {
        **LLAMA, "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "qwen.qwen3.qwen3_8b": {
        "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "num_hidden_layers": 36, "hidden_size": 4096,
        "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
    "qwen.qwen3_moe.qwen3_30b_a3b": {
        "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 151936, "num_hidden_layers": 48, "hidden_size": 2048,
        "intermediate_size": 6144, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768,
    },
    "gpt.gpt3_175b.gpt3_175b": {},
}  # fmt: skip


def make_recipe(name, monkeypatch):
    """Return a pre-training recipe of Bridge's; nothing is fetched."""
    import transformers
    from megatron.bridge import AutoBridge

    figures = RECIPES[name]
    # A recipe with experts asks which GPU dispatches to them.
    gpu = SimpleNamespace(major=9, minor=0, name="NVIDIA H100")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda *_: gpu)

    def from_hf_pretrained(*_, **__):
        config = getattr(transformers, figures["architectures"][0].replace("ForCausalLM", "Config"))
        return AutoBridge.from_hf_config(config(**figures))

    monkeypatch.setattr(AutoBridge, "from_hf_pretrained", from_hf_pretrained)
    module, function = name.rsplit(".", 1)
    return getattr(importlib.import_module(f"megatron.bridge.recipes.{module}"), f"{function}_pretrain_config")()


@pytest.fixture
def recipe(monkeypatch):
    return make_recipe("llama.llama3.llama3_8b", monkeypatch)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_datasets_are_megatrons_bit_for_bit(name, monkeypatch, text, build, tokenizer, process_group, tmp_path):
    recipe = make_recipe(name, monkeypatch)
    batch, length = recipe.train.global_batch_size, recipe.dataset.seq_length
    # As long as two of the recipe's steps, the second one begun.
    entry = f"nca:tokens={batch * length + 1}"
    with_nca(recipe, entry, text)
    # Of so short a text the recipe's own split leaves nothing for validation.
    recipe.dataset.tokenizer, recipe.dataset.path_to_cache, recipe.dataset.split = tokenizer, str(tmp_path), "90,5,5"
    calculator.init_num_microbatches_calculator(0, None, batch, 1, 1)
    try:
        built = datasets(recipe, sizes=[3 * batch, 4, 4])[0]
        expected = build([entry, text], sizes=(3 * batch, 4, 4), sequence_length=length)[0]
    finally:
        calculator.unset_num_microbatches_calculator()
    switch = plan().switch
    assert switch == 2 * batch
    for position in (0, 1, switch - 1, switch, switch + 1):
        for key in ("tokens", "labels", "loss_mask", "position_ids"):
            assert np.array_equal(built[position][key].numpy(), expected[position][key].numpy()), (position, key)


def test_a_recipe_takes_entries_and_keeps_the_rest(recipe):
    before = {name: value for name, value in vars(recipe).items() if name != "dataset"}
    with_nca(recipe, "nca:tokens=164M", "/data/text_document")
    assert recipe.dataset.blend == (["nca:tokens=164M", "/data/text_document"], None)
    assert {name: value for name, value in vars(recipe).items() if name != "dataset"} == before
    assert recipe.model.num_layers == 32


def test_a_recipe_without_a_data_path_is_mock_data(recipe):
    with pytest.raises(NCAError, match="means mock data"):
        with_nca(recipe, "nca:tokens=164M")


def test_an_override_of_the_command_line_takes_entries(recipe, config, text, build, process_group, batches_of_four):
    from megatron.bridge.training.utils.omegaconf_utils import process_config_with_overrides

    process_config_with_overrides(recipe, cli_overrides=[f'dataset.blend=[["{ENTRY}","{text}"],null]'])
    config.dataset.blend = recipe.dataset.blend
    built = datasets(config)[0]
    assert plan().switch == 8
    expected = build([ENTRY, text], sizes=(40, 4, 4), sequence_length=1024)[0]
    assert all(np.array_equal(built[n]["tokens"].numpy(), expected[n]["tokens"].numpy()) for n in (0, 7, 8, 11))


def test_the_example_is_the_recipe_with_entries(recipe):
    from examples.bridge.llama3_8b import make_config

    config = make_config("/data/text_document", "/results", "/data/tokenizer")
    assert (config.tokenizer.tokenizer_type, config.tokenizer.tokenizer_model) == ("HuggingFaceTokenizer", "/data/tokenizer")
    assert config.dataset.blend == (["nca:tokens=164M", "/data/text_document"], None)
    assert config.checkpoint.save == config.checkpoint.load == "/results/checkpoints"
    assert config.mixed_precision == "bf16_with_fp8_current_scaling_mixed"


def test_the_papers_arms_are_the_same_text_in_its_tokenizer_with_its_nca_before_it_and_without(monkeypatch):
    make_recipe("llama.llama3.llama32_1b", monkeypatch)
    from examples.paper import bridge

    nca, text = bridge.make_config("/data/owt", "/results"), bridge.make_config("/data/owt", "/results", nca="")
    assert nca.dataset.blend == (["nca:tokens=164M,batch=32", "/data/owt"], None)
    assert text.dataset.blend == (["/data/owt"], None)
    assert nca.train.train_iters - text.train.train_iters == 5005
    for config in (nca, text):
        assert (config.tokenizer.tokenizer_type, config.tokenizer.tokenizer_model) == ("HuggingFaceTokenizer", "gpt2")
        assert (config.model.num_layers, config.model.hidden_size, config.train.global_batch_size) == (24, 2048, 512)
        assert not config.model.share_embeddings_and_output_weights


def test_the_batch_script_starts_the_example_with_overrides_that_the_config_has(recipe):
    import re
    import subprocess
    from pathlib import Path

    from megatron.bridge.training.utils.omegaconf_utils import process_config_with_overrides

    script = Path("examples/slurm/megatron_bridge.sbatch")
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert Path(re.search(r"SCRIPT:-(\S+)}", text)[1]).is_file()
    (override,) = re.findall(r'"(train\.\S+)=\$minutes"', text)
    process_config_with_overrides(recipe, cli_overrides=[f"{override}=45"])
    assert recipe.train.exit_duration_in_mins == 45
