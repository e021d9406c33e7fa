"""Megatron-LM's own launches, read from a checkout, by family."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import yaml

from megatron_nca.rehearsal.checkouts import Checkout
from megatron_nca.rehearsal.scaling import Case, has_transformer_engine, is_hybrid, is_installed

CASES = Path("tests/functional_tests/test_cases")

GPT_LIKE = ("gpt", "moe", "mixtral", "hybrid", "nemotron", "common")
"""Folders of cases whose data are a GPTDataset's. The others pre-train BERT, T5 and multimodal models, or NeMo's."""


def read_cases(checkout: Checkout) -> list[Case]:
    """Every pre-training case of a checkout whose data are a GPTDataset's, by its folder."""
    root = checkout.path / CASES
    cases = []
    for path in sorted(root.rglob("model_config.yaml")):
        content = yaml.safe_load(path.read_text()) or {}
        folder = path.parent.relative_to(root)
        if content.get("MODE", "pretraining") == "pretraining" and folder.parts[0] in GPT_LIKE:
            cases.append(Case(str(folder), content.get("MODEL_ARGS") or {}))
    return cases


def _parallel(name: str) -> Callable[[Case], bool]:
    return lambda case: case.size(f"--{name}-parallel-size") > 1


FAMILIES: dict[str, Callable[[Case], bool]] = {
    "distillation, pruning": lambda case: any(flag.startswith(("--export-kd", "--flextron")) for flag in case.arguments),
    "mock data": lambda case: case.has("--mock-data"),
    "Megatron-FSDP": lambda case: case.has("--use-megatron-fsdp"),
    "PyTorch FSDP2": lambda case: case.has("--use-torch-fsdp2"),
    "hybrid with context parallelism": lambda case: is_hybrid(case) and _parallel("context")(case),
    "hybrid and Mamba": lambda case: is_hybrid(case),
    "Muon": lambda case: "muon" in str(case.arguments.get("--optimizer")),
    "linear attention": lambda case: case.arguments.get("--experimental-attention-variant") == "gated_delta_net",
    "sparse attention": lambda case: case.has("--experimental-attention-variant"),
    "experts with context parallelism": lambda case: case.has("--num-experts") and _parallel("context")(case),
    "context parallelism": _parallel("context"),
    "latent attention, multi-token prediction": lambda case: case.has("--mtp-num-layers"),
    "latent attention": lambda case: case.has("--multi-latent-attention"),
    "FP8": lambda case: case.has("--fp8-format"),
    "experts on a pipeline": lambda case: case.has("--num-experts") and _parallel("pipeline-model")(case),
    "experts": lambda case: case.has("--num-experts"),
    "gathers overlapped with the step": lambda case: case.has("--overlap-param-gather-with-optimizer-step"),
    "fill-in-the-middle": lambda case: case.has("--fim-data"),
    "interleaved pipeline": lambda case: any("virtual" in flag for flag in case.arguments),
    "uneven pipeline": lambda case: any(flag in case.arguments for flag in UNEVEN),
    "pipeline parallelism": _parallel("pipeline-model"),
    "tensor parallelism": _parallel("tensor-model"),
    "distributed optimizer": lambda case: case.has("--use-distributed-optimizer"),
    "half precision": lambda case: case.has("--fp16"),
    "data parallelism": lambda case: True,
}
"""What a case is of: the first that applies."""

UNEVEN = (
    *("--decoder-first-pipeline-num-layers", "--decoder-last-pipeline-num-layers", "--pipeline-model-parallel-layout"),
    *("--account-for-embedding-in-pipeline-split", "--account-for-loss-in-pipeline-split"),
)


def family(case: Case) -> str:
    """The family of a case."""
    return next(name for name, applies in FAMILIES.items() if applies(case))


def by_family(cases: list[Case]) -> dict[str, list[Case]]:
    """The cases of each family, those with the most flags first."""
    grouped: dict[str, list[Case]] = {name: [] for name in FAMILIES}
    for case in cases:
        grouped[family(case)].append(case)
    return {name: sorted(found, key=lambda case: (-len(case.arguments), case.name)) for name, found in grouped.items()}


def why_not(family: str, checkout: Checkout) -> str | None:
    """What a family's launches need that this interpreter lacks, if anything."""
    if family == "fill-in-the-middle":
        return "fill-in-the-middle needs a tokenizer of text, and the stand-in's words are numbers"
    if family == "distillation, pruning" and checkout.version >= (0, 18, 0) and not is_installed("modelopt"):
        return "distillation and pruning need nvidia-modelopt"
    if family == "PyTorch FSDP2" and checkout.version[:2] == (0, 16):
        return "Megatron-LM 0.16 calls its own wrapper of FSDP2 with an argument that it does not take"
    if family == "Muon" and not is_installed("emerging_optimizers"):
        return "Muon needs NVIDIA's Emerging-Optimizers"
    if family == "Megatron-FSDP" and has_transformer_engine() and _engine_version() < (2, 17):
        return "moments of Transformer Engine's fused Adam fit the shards of Megatron-FSDP since 2.17"
    return None


def _engine_version() -> tuple[int, ...]:
    return tuple(int(part) for part in importlib.metadata.version("transformer_engine").split(".")[:2])
