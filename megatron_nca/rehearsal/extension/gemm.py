"""Products, with their bias, GELU, accumulation and cast.

cuBLAS counts columns first, so the extension's product of A and B is, in rows, $B A$ with either transposed on request: of
a layer's output A is the weight, transposed, and B the input. Sums are float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from megatron_nca.rehearsal.extension import formats, quantizing


def generic_gemm(
    A: Any,  # noqa: N803 (the extension's names, by which it is called)
    transA: bool,  # noqa: N803
    B: Any,  # noqa: N803
    transB: bool,  # noqa: N803
    D: Any,  # noqa: N803
    quantizer: Any,
    output_dtype: int | None,
    bias: torch.Tensor | None,
    bias_type: int,
    gelu: bool,
    gelu_in: torch.Tensor | None,
    grad: bool,
    workspace: Any,
    workspace_size: int,
    accumulate: bool,
    use_split_accumulator: bool,
    comm_overlap: Any = None,
    comm_type: Any = None,
    extra_output: Any = None,
    bulk_overlap: bool = False,
    alpha: float = 1.0,
    beta: float | None = None,
) -> list[Any]:
    """Multiply two matrices.

    Args:
        A: Plain or quantized, (..., columns).
        transA: Whether A's last dimension is summed over.
        B: Plain or quantized, (..., columns).
        transB: Whether B's first dimensions are summed over.
        D: Tensor for the result, or None for a new one.
        quantizer: Casts the result, or None.
        output_dtype: Type of the result.
        bias: Added to the result; with `grad` only asks for its gradient, the sum of B's rows.
        bias_type: The type of the bias, and of what goes into GELU of a low-precision product.
        gelu: Whether the result goes through GELU; with `grad`, whether it is multiplied with GELU's gradient.
        gelu_in: Input at which the gradient of GELU is taken.
        grad: Whether this is a backward product.
        workspace: Not needed here.
        workspace_size: Not needed here.
        accumulate: Whether the result is added to `beta` times D.
        use_split_accumulator: Sums are float32 here in any case.
        comm_overlap: A user buffer, of which there are none.
        comm_type: Kind of communication of the user buffer; unused.
        extra_output: Second output of the user buffer; unused.
        bulk_overlap: Whether the user buffer overlaps in bulk; unused.
        alpha: A factor of the product.
        beta: A factor of D; 1 if None.

    Returns:
        Result, gradient of the bias or None, what went into GELU or None, `extra_output`.
    """
    if comm_overlap is not None:
        raise NotImplementedError("user buffers (--tp-comm-overlap) are not emulated on the CPU; leave them out")
    a, b = _operand(A, transA), _operand(B, not transB)
    product = (b.t() if transB else b) @ (a.t() if transA else a)
    if alpha != 1.0:
        product = product * alpha
    dtype = _result_type(A, D, output_dtype)
    low_precision = quantizing.kind_of(A) is not None or quantizing.kind_of(B) is not None
    bias_gradient = None
    if bias is not None and bias.numel():
        if grad:
            bias_gradient = b.sum(0).to(dtype)
        else:
            product = product + bias.float()
    before_gelu = None
    if gelu and grad:
        assert gelu_in is not None
        product = product * _gelu_gradient(gelu_in.float()).reshape(product.shape)
    elif gelu:
        before_gelu = product.to(formats.to_torch(bias_type) if low_precision else dtype)
        product = functional.gelu(before_gelu.float(), approximate="tanh")
    shape = _result_shape(A, transA, B, transB)
    result = _store(product.reshape(shape), D, quantizer, dtype, accumulate, 1.0 if beta is None else beta)
    return [result, bias_gradient, None if before_gelu is None else before_gelu.reshape(shape), extra_output]


def _operand(tensor: Any, rowwise: bool) -> torch.Tensor:
    kind = quantizing.kind_of(tensor)
    if kind is not None:
        matrix: torch.Tensor = kind.operand(tensor, rowwise)
        return matrix
    plain: torch.Tensor = tensor
    return plain.detach().reshape(-1, plain.shape[-1]).float()


def _result_type(a: Any, output: Any, named: int | None) -> torch.dtype:
    if named is not None:
        return formats.to_torch(named)
    dtype: torch.dtype = output.dtype if output is not None else a.dtype
    return dtype


def _result_shape(a: Any, transposed_a: bool, b: Any, transposed_b: bool) -> tuple[int, ...]:
    shape_a, shape_b = _shape(a), _shape(b)
    rows = (shape_b[-1],) if transposed_b else shape_b[:-1]
    columns = torch.Size(shape_a[:-1]).numel() if transposed_a else shape_a[-1]
    return (*rows, columns)


def _shape(tensor: Any) -> tuple[int, ...]:
    kind = quantizing.kind_of(tensor)
    return tuple(tensor.shape) if kind is None else kind.shape(tensor)


def _store(product: torch.Tensor, output: Any, quantizer: Any, dtype: torch.dtype, accumulate: bool, beta: float) -> Any:
    if quantizer is not None:
        return quantizing.quantize(product.to(dtype), quantizer, output)
    if output is None:
        return product.to(dtype)
    held = output.float() * beta if accumulate else 0.0
    return output.copy_((product.reshape(output.shape) + held).to(output.dtype))


def _gelu_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(functional.gelu(x, approximate="tanh").sum(), x)[0]


def te_general_grouped_gemm(
    A: Sequence[Any],  # noqa: N803
    transa: bool,
    B: Sequence[Any],  # noqa: N803
    transb: bool,
    D: Sequence[torch.Tensor],  # noqa: N803
    D_type: int,  # noqa: N803
    m_splits: Sequence[int],
    bias: Sequence[torch.Tensor],
    bias_type: int,
    single_output: bool,
    pre_gelu_out: Any,
    grad: bool,
    workspace: Any,
    workspace_size: int,
    accumulate: bool,
    use_split_accumulator: bool,
    math_sm_count: int,
) -> Sequence[torch.Tensor]:
    """Multiply pairs of matrices; a group may be empty.

    Returns:
        With `grad` the gradients of the biases, otherwise the biases.
    """
    outputs = list(torch.split(D[0], list(m_splits))) if single_output else D
    biases = []
    for index, (a, b) in enumerate(zip(A, B, strict=True)):
        own = bias[index] if bias[index].numel() else None
        result = generic_gemm(
            a, transa, b, transb, outputs[index], None, D_type, own, bias_type, False, None, grad, None, 0, accumulate,
            use_split_accumulator,
        )  # fmt: skip
        biases.append(result[1] if grad and result[1] is not None else bias[index])
    return biases


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "generic_gemm": generic_gemm,
    "te_general_grouped_gemm": te_general_grouped_gemm,
}
