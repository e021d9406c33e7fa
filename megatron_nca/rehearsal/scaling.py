"""A launch of Megatron-LM scaled down to a model that trains in seconds on a CPU.

It keeps every flag that changes optimizer, parallel layout, model family, number format or checkpoint. What is scaled are
sizes; what is left out are paths, logs, and kernels that only a GPU has. Data and length are `lengths`'s.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from megatron_nca.rehearsal.checkouts import Checkout

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A launch's flags.

    Args:
        name: Folder of a published case; script of any other launch.
        arguments: The launch's flags and their values: True for a flag alone, a text, a number, or a list of texts.
    """

    name: str
    arguments: Arguments = field(hash=False)

    def has(self, flag: str) -> bool:
        """Return whether a flag is given, and not given as false."""
        return self.arguments.get(flag) not in (None, False, "false")

    def size(self, flag: str) -> int:
        """Return the value of a flag that is a number; 1 where it is not given."""
        return int(self.arguments.get(flag) or 1)


LEFT_OUT = (
    # Paths, tokenizers and how long a run lasts, which are the caller's.
    *("--data-args-path", "--per-split-data-args-path", "--profile*", "--use-pytorch-profiler", "--*memory-history"),
    *("--memory-snapshot-path", "--local-rank", "--use-checkpoint-args", "--use-mp-args-from-checkpoint-args"),
    *("--save*", "--load", "--*data-path", "--data-cache-path", "--vocab-*", "--merge-file", "--tokenizer-*", "--tiktoken-*"),
    *("--split", "--train-*", "--exit-*", "--eval-*", "--tensorboard-*", "--wandb-*", "--log-*", "--logging-*", "--timing-*"),
    *("--lr-warmup-*", "--lr-decay-*", "--lr-wsd-*", "--manual-gc*", "--num-workers", "--distributed-timeout-minutes"),
    *("--no-load-*", "--finetune", "--override-opt_param-scheduler", "--use-checkpoint-opt_param-scheduler", "--test-mode"),
    *("--rerun-mode", "--error-injection-*", "--seed", "--no-mmap-bin-files", "--auto-detect-ckpt-format", "--mock-data"),
    # Writing a checkpoint beside the training, or through memory, is a matter of processes.
    *("--async-*", "--use-persistent-ckpt-worker", "--verify-integrity", "--ckpt-assume-constant-structure"),
    # Kernels, graphs and links of a GPU.
    *("--distributed-backend", "--attention-backend", "--transformer-impl", "--use-flash-attn", "--*-fusion", "--cuda-graph*"),
    *("--enable-cuda-graph", "--external-cuda-graph", "--te-rng-tracker", "--tp-comm-*", "--moe-flex-*", "--moe-hybridep-*"),
    *("--moe-enable-deepep", "--overlap-moe-*", "--moe-shared-expert-overlap", "--delay-wgrad-*", "--high-priority-*"),
    *("--defer-embedding-*", "--wgrad-deferral-*", "--fine-grained-activation-*", "--offload-modules", "--nccl-*"),
    *("--use-fused-weighted-*", "--no-persist-layer-norm", "--moe-deepep-*", "--use-transformer-engine-op-fuser"),
    *("--cp-comm-type", "--hierarchical-context-*", "--overlap-p2p-*", "--cross-entropy-*", "--moe-router-padding-*"),
    *("--cpu-offloading*", "--use-nccl-ub", "--fsdp-double-buffer", "--disable-gloo-*", "--deterministic-mode"),
    # Sizes.
    *("--num-layers", "--hidden-size", "--ffn-hidden-size", "--num-attention-heads", "--kv-channels", "--num-query-groups"),
    *("--seq-length", "--max-position-embeddings", "--micro-batch-size", "--global-batch-size", "--make-vocab-*"),
    *("--*-parallel-size", "--encoder-*", "--decoder-seq-length", "--rampup-batch-size", "--step-batch-size-*"),
    *("--num-layers-per-virtual-*", "--num-virtual-stages-*", "--pipeline-model-parallel-layout", "--use-mcore-models"),
    *("--decoder-first-*", "--decoder-last-*", "--microbatch-group-*", "--hybrid-*pattern", "--hybrid-*-ratio"),
    *(
        "--is-hybrid-model",
        "--mamba-*",
        "--recompute-num-layers",
        "--num-layers-at-*",
        "--first-last-layers-bf16",
        "--ddp-num-buckets",
    ),
    *("--use-tp-pp-dp-mapping", "--num-distributed-optimizer-instances", "--lr", "--min-lr", "--decoupled-*"),
)
"""Flags that a scaled case does not take over; some come back with other values."""

SMALLER = {
    **{"--num-experts": 4, "--moe-router-topk": 2, "--moe-ffn-hidden-size": 64, "--moe-shared-expert-intermediate-size": 64},
    **{"--moe-router-num-groups": 2, "--moe-router-group-topk": 1, "--moe-latent-size": 32, "--mtp-num-layers": 1},
    **{"--q-lora-rank": 32, "--kv-lora-rank": 32, "--qk-head-dim": 16, "--qk-pos-emb-head-dim": 16, "--v-head-dim": 16},
    **{"--linear-key-head-dim": 16, "--linear-value-head-dim": 16, "--linear-num-key-heads": 2, "--linear-num-value-heads": 4},
    **{"--dsa-indexer-n-heads": 2, "--dsa-indexer-head-dim": 16, "--dsa-indexer-topk": 8, "--moe-layer-freq": 1},
    **{"--linear-attention-freq": 2, "--rotary-scaling-factor": 1, "--mup-base-hidden-size": 32},
}
"""Sizes of a scaled case, where the case gives the flag."""

NEEDS_TRANSFORMER_ENGINE = (
    *("--sequence-parallel", "--apply-layernorm-1p", "--fp8-*", "--fp4-*", "--moe-grouped-gemm", "--first-last-layers-bf16"),
    *("--apply-wd-to-qk-layernorm", "--reuse-grad-buf-*"),
)
"""Flags that Megatron-Core's own layers refuse, and Transformer Engine's take."""


@dataclass(frozen=True)
class Scaled:
    """A case that trains in seconds.

    Args:
        script: The script that runs it.
        flags: Flags of the scaled launch, less data and length.
        layout: Sizes of the parallel groups, as `Run` names them.
        environment: Variables of its ranks.
    """

    script: str
    flags: tuple[str, ...]
    layout: dict[str, int] = field(hash=False)
    environment: dict[str, str] = field(hash=False)


def scale(case: Case, checkout: Checkout) -> Scaled:
    """Scale a case down to at most four ranks and two layers a stage."""
    hybrid = is_hybrid(case)
    layout = layout_of(case)
    engine = has_transformer_engine() and layout["context_parallel"] == 1
    flags: list[str] = []
    for flag, value in case.arguments.items():
        if value not in (None, False, "false") and not left_out(flag, engine):
            flags += _words(flag, SMALLER.get(flag, value))
    flags += sizes_of(case, layout, hybrid)
    if case.arguments.get("--moe-token-dispatcher-type") == "flex":
        flags += ["--moe-token-dispatcher-type", "alltoall"]
    if case.has("--experimental-attention-variant"):
        flags.append("--deterministic-mode")
    if case.has("--multi-latent-attention"):
        # Megatron-LM's other embedding asks PyTorch for a device by its number.
        flags += ["--rope-type", "rope"]
    if case.has("--fp16"):
        # From Megatron-LM's first scale, the few steps here would all be skipped.
        flags += ["--initial-loss-scale", "1024"]
    flags += ["--transformer-impl", "transformer_engine" if engine else "local", "--attention-backend", "unfused"]
    return Scaled(script_of(case, checkout), tuple(flags), layout, environment_of(case))


def script_of(case: Case, checkout: Checkout) -> str:
    """Return the script of a checkout that trains a case's model."""
    if not is_hybrid(case):
        return "pretrain_gpt.py"
    return "pretrain_hybrid.py" if (checkout.path / "pretrain_hybrid.py").exists() else "pretrain_mamba.py"


def left_out(flag: str, engine: bool) -> bool:
    """Return whether a scaled case does not take a flag over, with Transformer Engine or without."""
    patterns = LEFT_OUT if engine else LEFT_OUT + NEEDS_TRANSFORMER_ENGINE
    return any(fnmatch(flag, pattern) for pattern in patterns)


def environment_of(case: Case) -> dict[str, str]:
    """Return the variables of a scaled case's ranks."""
    # FSDP refuses the one connection that others ask for.
    connections = "8" if any("fsdp" in flag for flag in case.arguments) else "1"
    environment = {"CUDA_DEVICE_MAX_CONNECTIONS": connections, "NCCL_ALGO": "Ring", "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0"}
    if case.has("--apply-query-key-layer-scaling"):
        environment["NVTE_APPLY_QK_LAYER_SCALING"] = "1"
    if case.arguments.get("--fp8-recipe") == "mxfp8":
        environment["MEGATRON_NCA_CAPABILITY"] = "10.0"
    return environment


def is_hybrid(case: Case) -> bool:
    """Return whether a case's model has state-space layers."""
    return case.name.startswith(("hybrid", "nemotron", "pretrain_hybrid", "pretrain_mamba")) or any(
        case.has(flag) for flag in ("--hybrid-layer-pattern", "--hybrid-override-pattern", "--is-hybrid-model")
    )


def is_installed(package: str) -> bool:
    """Return whether this interpreter has a package."""
    return importlib.util.find_spec(package) is not None


def has_transformer_engine() -> bool:
    """Return whether this interpreter has Transformer Engine's Python, over the stand-in's extension."""
    return is_installed("transformer_engine")


def _words(flag: str, value: Any) -> list[str]:
    if value is True or value == "true":
        return [flag]
    if isinstance(value, list):
        return [flag, *value]
    text = str(value)
    if text.startswith("[") and text.endswith("]"):
        return [flag, *text[1:-1].split()]
    return [flag, *text.split()] if flag in ("--recompute-modules",) else [flag, text]


def layout_of(case: Case) -> dict[str, int]:
    """Each parallelism that the case has, of size 2, as long as there are no more than four ranks."""
    sizes = {
        "context_parallel": case.size("--context-parallel-size"),
        "pipeline_parallel": case.size("--pipeline-model-parallel-size"),
        "tensor_parallel": case.size("--tensor-model-parallel-size"),
        "expert_parallel": case.size("--expert-model-parallel-size"),
    }
    layout = dict.fromkeys((*sizes, "data_parallel"), 1)
    experts, ranks = sizes.pop("expert_parallel") > 1, 1
    if experts:
        layout |= {"data_parallel": 2, "expert_parallel": 2}
        ranks = 2
    for name, size in sizes.items():
        if size > 1 and ranks < 4:
            layout[name], ranks = 2, ranks * 2
    if experts and layout["context_parallel"] == 2 and ranks == 4 and layout["data_parallel"] == 2:
        return layout
    if ranks < 4:
        layout["data_parallel"] = 2 * layout["data_parallel"] if not experts or ranks == 1 else layout["data_parallel"]
    return layout


def sizes_of(case: Case, layout: dict[str, int], hybrid: bool) -> list[str]:
    """Return the flags of a scaled model's sizes and of its batches."""
    stages = layout["pipeline_parallel"]
    flags = ["--hidden-size", "64", "--num-attention-heads", "4", "--kv-channels", "16", "--ffn-hidden-size", "128"]
    if case.has("--group-query-attention"):
        flags += ["--num-query-groups", "2"]
    if stages > 1 and any("virtual" in flag for flag in case.arguments):
        flags += ["--num-layers-per-virtual-pipeline-stage", "1"]
    if hybrid:
        flags += _pattern(case, stages, attention=layout["context_parallel"] == 1)
        flags += ["--mamba-num-heads", "64", "--mamba-head-dim", "2", "--mamba-num-groups", "2", "--mamba-state-dim", "16"]
    else:
        flags += ["--num-layers", str(2 * stages)]
    if case.has("--recompute-num-layers"):
        flags += ["--recompute-num-layers", "1"]
    if case.size("--expert-tensor-parallel-size") == 1 and layout["expert_parallel"] > 1:
        flags += ["--expert-tensor-parallel-size", "1"]
    if case.size("--num-distributed-optimizer-instances") > 1 and layout["data_parallel"] * layout["context_parallel"] > 1:
        flags += ["--num-distributed-optimizer-instances", "2"]
    return [*flags, "--micro-batch-size", "1", "--global-batch-size", "8"]


def _pattern(case: Case, stages: int, attention: bool) -> list[str]:
    """State-space, attention and feed-forward layers, experts where the case has them, two a stage or more.

    Hybrid models have Transformer Engine's attention alone, which has no form for a CPU under context parallelism.
    """
    second = "*" if attention else "M"
    name = "--hybrid-layer-pattern" if case.has("--hybrid-layer-pattern") else "--hybrid-override-pattern"
    end = "ME" if case.has("--num-experts") else "M-"
    pattern = f"M{second}{end}"
    words = [] if name == "--hybrid-layer-pattern" else ["--num-layers", str(len(pattern))]
    prediction = "/E" if case.has("--mtp-num-layers") and "/" in str(case.arguments.get(name)) else ""
    whole = pattern if stages == 1 or name != "--hybrid-layer-pattern" else f"M{second}|{end}"
    return [name, whole + prediction, *words, *(["--is-hybrid-model"] if case.has("--is-hybrid-model") else [])]
