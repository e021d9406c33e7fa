"""Enums and classes of the extension, and what it answers about the machine."""

import enum
from typing import Any


class DType(enum.IntEnum):
    """Transformer Engine's types of tensors, numbered as in transformer_engine.h."""

    kByte = 0  # noqa: N815
    kInt32 = 2  # noqa: N815
    kFloat32 = 4  # noqa: N815
    kFloat16 = 5  # noqa: N815
    kBFloat16 = 6  # noqa: N815
    kFloat8E4M3 = 7  # noqa: N815
    kFloat8E5M2 = 8  # noqa: N815
    kFloat4E2M1 = 10  # noqa: N815


class FP8TensorMeta:
    """Scales and histories as versions before 2.0 keep them."""

    scale = scale_inv = amax_history = None


class CommOverlapCore:
    """A user buffer; none can be made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("user buffers (--tp-comm-overlap) are not emulated on the CPU; leave them out")


class CommOverlapBase(CommOverlapCore):
    """A user buffer."""


class CommOverlapP2PBase(CommOverlapCore):
    """A user buffer."""


class CommOverlapHelper(CommOverlapCore):
    """A user buffer."""


class CommOverlap(CommOverlapBase):
    """A user buffer."""


class CommOverlapP2P(CommOverlapP2PBase):
    """A user buffer."""


_LAYOUTS = (
    "SB3HD SBH3D SBHD_SB2HD SBHD_SBH2D SBHD_SBHD_SBHD BS3HD BSH3D BSHD_BS2HD BSHD_BSH2D BSHD_BSHD_BSHD T3HD TH3D THD_T2HD "
    "THD_TH2D THD_THD_THD SBHD_BSHD_BSHD BSHD_SBHD_SBHD THD_BSHD_BSHD THD_SBHD_SBHD Paged_KV_BSHD_BSHD_BSHD "
    "Paged_KV_BSHD_SBHD_SBHD Paged_KV_SBHD_BSHD_BSHD Paged_KV_SBHD_SBHD_SBHD Paged_KV_THD_BSHD_BSHD Paged_KV_THD_SBHD_SBHD "
    "BHSD_BHSD_BHSD QKV_Layout_NOT_SET"
)
_ENUMS = {
    "NVTE_Bias_Type": "NVTE_NO_BIAS NVTE_PRE_SCALE_BIAS NVTE_POST_SCALE_BIAS NVTE_ALIBI",
    "NVTE_Mask_Type": "NVTE_NO_MASK NVTE_PADDING_MASK NVTE_CAUSAL_MASK NVTE_PADDING_CAUSAL_MASK NVTE_CAUSAL_BOTTOM_RIGHT_MASK "
    "NVTE_PADDING_CAUSAL_BOTTOM_RIGHT_MASK",
    "NVTE_Softmax_Type": "NVTE_VANILLA_SOFTMAX NVTE_OFF_BY_ONE_SOFTMAX NVTE_LEARNABLE_SOFTMAX",
    "NVTE_QKV_Format": "NVTE_SBHD NVTE_BSHD NVTE_THD NVTE_BSHD_2SBHD NVTE_SBHD_2BSHD NVTE_THD_2BSHD NVTE_THD_2SBHD NVTE_BHSD "
    "NVTE_QKV_Format_NOT_SET",
    "NVTE_QKV_Layout": " ".join(f"NVTE_{layout}" for layout in _LAYOUTS.split()),
    "Float8BlockScaleTensorFormat": "GEMM_READY COMPACT",
    "NVTEScalingMode": "NVTE_DELAYED_TENSOR_SCALING NVTE_MXFP8_1D_SCALING NVTE_BLOCK_SCALING_1D NVTE_BLOCK_SCALING_2D "
    "NVTE_NVFP4_1D_SCALING NVTE_INVALID_SCALING",
    "CommOverlapType": "RS AG",
    "CommOverlapAlgo": "BULK_OVERLAP_AG BULK_OVERLAP_RS SPLIT_PIPELINED_AG_P2P SPLIT_PIPELINED_RS SPLIT_PIPELINED_RS_P2P "
    "ATOMIC_GEMM_RS ATOMIC_GEMM_AG_P2P ATOMIC_GEMM_RS_P2P EXTERNAL_BULK_OVERLAP_AG",
    "NVTEQBHistogramMode": "TWO_KERNEL FUSED_ATOMIC",
    "NVTERoutingMapFormat": "BYTEMAP BITMAP_U8",
    "FP8FwdTensors": " ".join(f"GEMM{gemm}_{role}" for gemm in (1, 2, 3) for role in ("INPUT", "WEIGHT", "OUTPUT")),
    "FP8BwdTensors": " ".join(f"{role}{gemm}" for gemm in (1, 2, 3) for role in ("GRAD_OUTPUT", "GRAD_INPUT")),
}
_CLASSES = (
    DType, FP8TensorMeta, CommOverlapCore, CommOverlapBase, CommOverlapP2PBase, CommOverlapHelper, CommOverlap, CommOverlapP2P,
)  # fmt: skip
_ATTENTION_BACKENDS = {"NVTE_No_Backend": -1, "NVTE_F16_max512_seqlen": 0, "NVTE_F16_arbitrary_seqlen": 1, "NVTE_FP8": 2}
_LAST_VERSION_WITH_SHORT_ATTENTION = (2, 19)

_ANSWERS = {
    "get_cudnn_version": 91900,
    "get_cublasLt_version": 130100,
    "get_num_cublas_streams": 1,
    "get_stream_priority_range": (0, 0),
    "device_supports_multicast": False,
    "ubuf_built_with_mpi": False,
    "init_extension": None,
}


def of_version(version: tuple[int, int]) -> dict[str, Any]:
    """Return enums, classes and answers by name, as the extension of a version has them."""
    backends, newer = dict(_ATTENTION_BACKENDS), version > _LAST_VERSION_WITH_SHORT_ATTENTION
    if newer:
        del backends["NVTE_F16_max512_seqlen"]
    backend = enum.IntEnum("NVTE_Fused_Attn_Backend", backends)  # type: ignore[misc]
    none: Any = backend["NVTE_No_Backend"]
    answers = {**_ANSWERS, "get_fused_attn_backend": (none, "not emulated") if newer else none}
    return {
        **{name: _enum(name, members) for name, members in _ENUMS.items()},
        **{found.__name__: found for found in _CLASSES},
        **{name: _constant(answer) for name, answer in answers.items()},
        "NVTE_Fused_Attn_Backend": backend,
    }


def _enum(name: str, members: str) -> Any:
    return enum.IntEnum(name, {member: number for number, member in enumerate(members.split())})


def _constant(answer: Any) -> Any:
    def answers(*args: Any, **kwargs: Any) -> Any:
        return answer

    return answers
