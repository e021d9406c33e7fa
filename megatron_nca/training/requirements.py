"""What Megatron's arguments alone decide: a launch that cannot be served is refused before a model is built.

A refusal's advice holds: the launch it describes is not refused for the same reason again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from megatron_nca.errors import CurriculumError, NCAError
from megatron_nca.interfaces.megatron_lm import Arguments
from megatron_nca.stacks import MEGATRON_LM
from megatron_nca.training import learning_rate
from megatron_nca.training.options import Options


def refuse_unsupported(args: Arguments, options: Options, has_switch: bool = True) -> None:
    """Refuse what cannot work, whatever the model.

    Args:
        args: Megatron-LM's, validated.
        options: The user's.
        has_switch: Whether the run goes over from NCA to other data, or blends them for good.

    Raises:
        NCAError: The transition that is asked for cannot be done to a model or an optimizer of this kind.
        CurriculumError: The data are not read as a curriculum's are.
    """
    what_is_done = options if has_switch else replace(options, reinit=(), optimizer="keep")
    for refuse in _REFUSALS:
        refuse(args, what_is_done)


def _refuse_other_phases(args: Arguments, options: Options) -> None:
    if getattr(args, "phase_transition_iterations", None):
        raise CurriculumError(
            "--phase-transition-iterations restarts the data at given iterations, nca: phases place it by consumed samples; "
            "give one or the other"
        )


def _refuse_fine_tuning(args: Arguments, options: Options) -> None:
    if getattr(args, "sft", False):
        raise CurriculumError(
            "--sft reads conversations with a dataset of its own, nca: entries need a GPTDataset for the text; leave --sft "
            "out, or give the fine-tuning a launch of its own, without nca: entries"
        )


def _refuse_sequences_of_many_lengths(args: Arguments, options: Options) -> None:
    if getattr(args, "hybrid_context_parallel", False):
        raise CurriculumError(
            "--hybrid-context-parallel lays sequences of many lengths over its ranks, and an nca: entry's have one; leave it "
            "out: --context-parallel-size works"
        )


def _refuse_validation_across_documents(args: Arguments, options: Options) -> None:
    if getattr(args, "dataloader_inter_document_masking", False) and options.valid is not None:
        raise NCAError(
            "--nca-valid lets attention see every frame before it in a sample, which --dataloader-inter-document-masking keeps "
            "from the frames of other trajectories; leave --nca-valid out"
        )


def _refuse_a_rate_of_no_group(args: Arguments, options: Options) -> None:
    if getattr(args, "decoupled_lr", None) is None:
        learning_rate.refuse_decoupled(options.transition_settings().phase_lr, MEGATRON_LM)


def _refuse_offload(args: Arguments, options: Options) -> None:
    if getattr(args, "optimizer_cpu_offload", False) and (options.reinit or options.optimizer == "fresh"):
        raise NCAError(
            "--optimizer-cpu-offload keeps copies of weights and moments on the host that the transition cannot follow; leave "
            "it out, give --nca-reinit none --nca-optimizer keep, or train the NCA phase alone and start the text from "
            "`megatron-nca transfer`"
        )


def _refuse_weight_shards(args: Arguments, options: Options) -> None:
    sizes = [getattr(args, name, None) or 1 for name in ("gtp_weight_remat_size", "expert_gtp_weight_remat_size")]
    if options.reinit and max(sizes) > 1:
        raise NCAError(
            "--tensor-parallel-num-weight-shards cuts weights over a further group, whose shards are not drawn anew; leave it "
            "out, or give --nca-reinit none"
        )


def _refuse_fsdp_of_version_two(args: Arguments, options: Options) -> None:
    sharded = getattr(args, "use_megatron_fsdp", False) and getattr(args, "megatron_fsdp_version", 1) == 2
    if options.reinit and sharded:
        raise NCAError(
            "--megatron-fsdp-version 2 keeps shards of a form that is not drawn anew; leave it out, which means version 1, or "
            "give --nca-reinit none"
        )


def _refuse_experts_in_one(args: Arguments, options: Options) -> None:
    flags = [flag for flag in ("moe_use_legacy_grouped_gemm", "moe_single_grouped_weight") if getattr(args, flag, False)]
    if "mlp" in options.reinit and flags and getattr(args, "num_experts", None):
        raise NCAError(
            f"--{flags[0].replace('_', '-')} keeps a rank's experts in one parameter, which is not drawn anew; leave it out, "
            f"or leave mlp out of --nca-reinit {','.join(options.reinit)}"
        )


_REFUSALS: tuple[Callable[[Arguments, Options], None], ...] = (
    _refuse_validation_across_documents,
    _refuse_other_phases,
    _refuse_fine_tuning,
    _refuse_sequences_of_many_lengths,
    _refuse_a_rate_of_no_group,
    _refuse_offload,
    _refuse_weight_shards,
    _refuse_fsdp_of_version_two,
    _refuse_experts_in_one,
)
