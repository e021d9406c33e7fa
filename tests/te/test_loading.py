import pytest

from megatron_nca.rehearsal import extension
from megatron_nca.rehearsal.extension import machine, names
from tests.te.conftest import needs_transformer_engine


def test_what_is_not_emulated_says_so_by_name_when_it_is_called():
    made = extension.module((2, 11))
    with pytest.raises(NotImplementedError, match=r"transformer_engine_torch\.fused_attn_fwd is not emulated"):
        made.fused_attn_fwd(1, 2)


def test_names_of_the_import_system_are_not_made_up():
    assert not hasattr(extension.module((2, 11)), "__path__")


def test_calls_are_counted():
    import torch

    made = extension.module((2, 11))
    before = extension.CALLS["silu"]
    made.silu(torch.ones(2), None)
    assert extension.CALLS["silu"] == before + 1


def test_a_version_has_its_own_attention_backends():
    assert "NVTE_F16_max512_seqlen" in names.of_version((2, 17))["NVTE_Fused_Attn_Backend"].__members__
    assert "NVTE_F16_max512_seqlen" not in names.of_version((2, 20))["NVTE_Fused_Attn_Backend"].__members__


def test_user_buffers_cannot_be_made():
    with pytest.raises(NotImplementedError, match="--tp-comm-overlap"):
        extension.module((2, 11)).CommOverlap()


@pytest.mark.parametrize(("named", "expected"), [("", (9, 0)), ("10.0", (10, 0)), ("8.9", (8, 9))])
def test_the_machine_is_a_hopper_unless_told_otherwise(monkeypatch, named, expected):
    monkeypatch.setenv(machine.VARIABLE, named)
    assert machine.capability() == expected


def test_a_capability_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv(machine.VARIABLE, "hopper")
    with pytest.raises(ValueError, match=r"MEGATRON_NCA_CAPABILITY=hopper is no compute capability; write one as 9\.0"):
        machine.capability()


@needs_transformer_engine
class TestTransformerEngine:
    def test_its_own_python_runs_over_the_emulation(self):
        import transformer_engine.pytorch as te
        import transformer_engine_torch

        assert isinstance(transformer_engine_torch, extension.Extension)
        assert te.Linear.__module__.startswith("transformer_engine.pytorch.module")

    def test_every_recipe_of_a_hopper_is_there_and_none_of_a_blackwell(self):
        from transformer_engine.pytorch import fp8

        assert fp8.check_fp8_support()[0]
        assert fp8.check_fp8_block_scaling_support()[0]
        assert not fp8.check_mxfp8_support()[0]

    @pytest.mark.parametrize("algorithm", ["max", "most_recent"])
    def test_its_own_update_of_scales_gives_what_the_emulated_kernel_gives(self, algorithm):
        import torch
        import transformer_engine_torch as tex
        from transformer_engine.common.recipe import DelayedScaling, Format
        from transformer_engine.pytorch import fp8

        recipe = DelayedScaling(fp8_format=Format.HYBRID, amax_history_len=4, amax_compute_algo=algorithm)
        generator = torch.Generator().manual_seed(0)
        kernel, python = ((torch.zeros(4, 3), torch.ones(3)) for _ in range(2))
        for _ in range(9):
            amax = torch.rand(3, generator=generator) + 0.1
            for history, _ in (kernel, python):
                history[0] = amax
            tex.fused_amax_and_scale_update_after_reduction(amax, [kernel[0]], [kernel[1]], algorithm, tex.DType.kFloat8E4M3, 0)
            fp8._amax_and_scale_update(python[0], python[1], 448.0, recipe)
            for own, theirs in zip(kernel, python, strict=True):
                torch.testing.assert_close(own, theirs)
