"""A config of Bridge's as flags and back, and made small: its kind stays, its sizes do not."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

if importlib.util.find_spec("megatron") is None or importlib.util.find_spec("megatron.bridge") is None:
    pytest.skip("needs Megatron-Bridge; make test-bridge brings it", allow_module_level=True)

from megatron.bridge import AutoBridge

from megatron_nca.rehearsal.bridge import hub, names, scaling, settings
from megatron_nca.rehearsal.bridge.running import is_option
from megatron_nca.rehearsal.launching import arguments

ENTRY = "nca:tokens=164M"


@pytest.fixture
def config(monkeypatch):
    from megatron.bridge.recipes.llama import llama3

    def from_hf_pretrained(path, **_):
        return AutoBridge.from_hf_config(hub.config_of_kind(path))

    monkeypatch.setattr(AutoBridge, "from_hf_pretrained", from_hf_pretrained)
    config = llama3.llama3_8b_pretrain_config()
    config.dataset.blend = ([ENTRY, "/data/a", "/data/b"], [1.0, 0.7, 0.3])
    return config


def test_a_config_is_read_as_megatron_lm_s_flags(config):
    flags = arguments(settings.flags_of(config))
    # A phase has a length and no weight.
    assert flags["--data-path"] == [ENTRY, "0.7", "/data/a", "0.3", "/data/b"]
    assert (flags["--seq-length"], flags["--global-batch-size"], flags["--train-iters"]) == ("8192", "512", "1168251")
    assert (flags["--lr-warmup-iters"], flags["--eval-iters"], flags["--ckpt-format"]) == ("2000", "32", "torch_dist")
    assert (flags["--context-parallel-size"], flags["--group-query-attention"]) == ("2", True)
    assert "--lr-warmup-samples" not in flags


def test_splits_with_data_of_their_own_stay_apart(config):
    config.dataset.blend_per_split = [([ENTRY, "/data/a"], None), (["/data/b"], None), None]
    flags = arguments(settings.flags_of(config))
    assert (flags["--train-data-path"], flags["--valid-data-path"]) == ([ENTRY, "/data/a"], "/data/b")
    assert not {"--data-path", "--test-data-path"} & set(flags)


def test_flags_come_back_into_a_config(config):
    words = "--data-path /data/c --seq-length 128 --train-samples 96 --eval-iters 1 --lr 1e-3 --split 90,5,5 --hidden-size 64"
    settings.apply(config, words.split())
    assert config.dataset.blend == (["/data/c"], None)
    assert config.dataset.blend_per_split is None
    assert config.dataset.seq_length == config.dataset.sequence_length == config.model.seq_length == 128
    assert (config.train.train_samples, config.optimizer.lr, config.dataset.split) == (96, 1e-3, "90,5,5")
    assert getattr(config, "validation", config.train).eval_iters == 1
    assert config.model.hidden_size == 64


SCALED = (
    "--hidden-size 64 --num-attention-heads 4 --kv-channels 16 --ffn-hidden-size 128 --num-query-groups 2 --num-layers 2 "
    "--transformer-impl local --micro-batch-size 1 --global-batch-size 8 --train-iters 14 --context-parallel-size 1"
)


def test_a_scaled_config_keeps_its_kind(config):
    config.checkpoint.async_save = True
    config.comm_overlap = object()
    left_out = scaling.scale(config, SCALED.split())
    model = config.model
    assert (model.num_layers, model.hidden_size, model.num_query_groups) == (2, 64, 2)
    assert (model.normalization, model.position_embedding_type, model.gated_linear_unit) == ("RMSNorm", "rope", True)
    assert (config.train.train_iters, config.dist.distributed_backend, config.checkpoint.async_save) == (14, "gloo", False)
    assert config.optimizer.optimizer == "adam"
    assert config.ddp.use_distributed_optimizer
    assert {"comm_overlap", "model.transformer_impl"} <= set(left_out)
    assert not [name for name in left_out if name.startswith(("checkpoint.", "train."))]


def test_fp8_goes_where_transformer_engine_is_not_installed(config):
    config.mixed_precision = "bf16_with_fp8_current_scaling_mixed"
    scaling.scale(config, SCALED.split())
    assert (config.mixed_precision.fp8, config.mixed_precision.bf16) == (None, True)


def test_experts_become_four(config):
    config.model.num_moe_experts, config.model.moe_router_topk, config.model.moe_layer_freq = 64, 8, [0, 1]
    scaling.scale(config, SCALED.split())
    assert (config.model.num_moe_experts, config.model.moe_router_topk, config.model.moe_layer_freq) == (4, 2, 1)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("meta-llama/Meta-Llama-3-8B", "LlamaConfig"),
        ("Qwen/Qwen3-30B-A3B", "Qwen3MoeConfig"),
        ("Qwen/Qwen3-8B", "Qwen3Config"),
        ("deepseek-ai/DeepSeek-V3", "DeepseekV3Config"),
        ("a/model-of-ours", "NoneType"),
    ],
)
def test_a_model_s_kind_is_in_its_name(path, kind):
    assert type(hub.config_of_kind(path)).__name__ == kind


def test_overrides_of_the_plugin_are_told_from_bridge_s():
    assert [is_option(word) for word in ("nca.lr=1e-4", "+nca.valid", "train.train_iters=9", "--recipe")] == [
        True, True, False, False,
    ]  # fmt: skip


def checks_of_the_model(config):
    from megatron_nca.rehearsal.bridge.course import BridgeRehearsal

    launch, resolved = SimpleNamespace(script=Path("launch.py")), {"flags": settings.flags_of(config)}
    return [(check.state, check.detail) for check in BridgeRehearsal(launch, Path(), None, None, resolved).model()]


def test_what_of_a_model_is_not_rehearsed_is_told(config):
    assert checks_of_the_model(config) == []
    config.model.mtp_num_layers = 1
    if not names.has_engine():
        ((state, detail),) = checks_of_the_model(config)
        assert state == "changed"
        assert detail.endswith("without multi-token prediction")
    config.model.hybrid_override_pattern = "M*M-"
    state, detail = checks_of_the_model(config)[0]
    assert state == "FAILED"
    assert "state-space layers" in detail
