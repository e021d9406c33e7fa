from types import SimpleNamespace

import pytest

from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.training.options import Options
from megatron_nca.training.requirements import refuse_unsupported

EVERYTHING = Options(reinit=("embeddings", "attention", "mlp", "norms"))
NOTHING = Options(reinit=(), optimizer="keep")


def refusal(options=EVERYTHING, **args):
    with pytest.raises(NCAError) as refused:
        refuse_unsupported(SimpleNamespace(**args), options)
    return str(refused.value)


def goes_through(options=EVERYTHING, has_switch=True, **args):
    refuse_unsupported(SimpleNamespace(**args), options, has_switch)
    return True


TRANSITIONS = {
    "--optimizer-cpu-offload": {"optimizer_cpu_offload": True},
    "--tensor-parallel-num-weight-shards": {"gtp_weight_remat_size": 2},
    "--megatron-fsdp-version 2": {"use_megatron_fsdp": True, "megatron_fsdp_version": 2},
    "--moe-single-grouped-weight": {"moe_single_grouped_weight": True, "num_experts": 8},
    "--moe-use-legacy-grouped-gemm": {"moe_use_legacy_grouped_gemm": True, "num_experts": 8},
}


@pytest.mark.parametrize(("flag", "args"), TRANSITIONS.items(), ids=TRANSITIONS)
def test_the_advice_of_a_refusal_holds(flag, args):
    message = refusal(**args)
    assert message.startswith(flag)
    assert "leave it out" in message
    assert goes_through()
    # The other way out that the message names.
    assert "--nca-reinit" in message
    assert goes_through(NOTHING, **args)


@pytest.mark.parametrize("args", TRANSITIONS.values(), ids=TRANSITIONS)
def test_a_run_without_a_switch_is_not_refused_for_it(args):
    assert goes_through(has_switch=False, **args)


def test_offload_is_refused_for_moments_alone():
    assert "--nca-optimizer keep" in refusal(Options(reinit=()), optimizer_cpu_offload=True)


def test_experts_in_one_parameter_matter_only_where_they_are_drawn():
    assert goes_through(Options(), moe_single_grouped_weight=True, num_experts=8)


def test_fsdp_of_version_one_goes_through():
    assert goes_through(use_megatron_fsdp=True, megatron_fsdp_version=1)
    assert goes_through(use_megatron_fsdp=True)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"sft": True}, "--sft"),
        ({"hybrid_context_parallel": True}, "--hybrid-context-parallel"),
        ({"phase_transition_iterations": [10]}, "--phase-transition-iterations"),
    ],
)
def test_data_that_are_read_otherwise_are_refused_with_or_without_a_switch(args, named):
    for has_switch in (True, False):
        with pytest.raises(CurriculumError, match=named):
            refuse_unsupported(SimpleNamespace(**args), NOTHING, has_switch)


def test_validation_of_nca_that_would_attend_otherwise_than_training_is_refused_with_or_without_a_switch():
    for has_switch in (True, False):
        with pytest.raises(NCAError, match=r"--nca-valid .* --dataloader-inter-document-masking"):
            refuse_unsupported(SimpleNamespace(dataloader_inter_document_masking=True), Options(valid=2), has_switch)
    assert goes_through(Options(valid=2), dataloader_inter_document_masking=False)
    assert goes_through(dataloader_inter_document_masking=True)
