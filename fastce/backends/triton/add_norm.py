"""The end of a sublayer in one pass: bias, dropout, sum with the stream, norm."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.triton.blocks import blocks_of_rows
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout, keep_factors
from fastce.backends.triton.norm import Statistics, launch_backward, normalised
from fastce.backends.triton.quantize import Quantized, empty_quantized, quantized_rows, store_quantized
from fastce.backends.weights import NormWeights
from fastce.spec import Norm, RMSNorm

# Reference: fastce.backends.reference.ops.add_norm and normalize.


@triton.jit(do_not_specialize=["rows", "seed"])
def add_norm_forward_kernel(
    x_ptr,  # [rows, size], or None for 0
    bias_ptr,  # [size], or None
    stream_ptr,  # [rows, size]: rows lie `heads` together, tokens at a stride
    weight_ptr,  # [size]
    norm_bias_ptr,  # [size], or None
    stream_output_ptr,  # [rows, size]: what becomes the stream, or None
    normed_ptr,  # [rows, size]
    values_ptr,  # [rows, size], int8 or fp8: what was normed, or None
    scales_ptr,  # [rows], float32, or None
    zeros_ptr,  # [rows], int32, or None, as for fp8
    total_ptr,  # [rows, size], float32, or None
    mean_ptr,  # [rows], float32, or None
    inverse_ptr,  # [rows], float32, or None
    rows,
    x_stride,
    heads,
    token_stride,
    eps,
    seed,
    probability,
    SIZE: tl.constexpr,
    RMS: tl.constexpr,
    KEEP_SUM: tl.constexpr,  # what becomes the stream: the sum, or the normed sum
    DROPOUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has a block of whole rows."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
    column = tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    in_row, in_rows = column < SIZE, row < rows  # [1, C], [R, 1]
    inside = in_rows & in_row  # [R, C]
    long_row = row.to(tl.int64)
    place = long_row * SIZE + column  # [R, C]
    stream_place = long_row // heads * token_stride + long_row % heads * SIZE + column  # [R, C]
    total = tl.load(stream_ptr + stream_place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
    if x_ptr is not None:
        x = tl.load(x_ptr + long_row * x_stride + column, mask=inside, other=0.0).to(tl.float32)  # [R, C]
        if bias_ptr is not None:
            x += tl.load(bias_ptr + column, mask=in_row, other=0.0).to(tl.float32)  # [1, C]
        if DROPOUT:
            x *= keep_factors(seed, probability, row, column, 0)
        total += x
    y, mean, inverse = normalised(total, in_row, eps, SIZE, RMS)  # [R, C], [R, 1], [R, 1]
    y *= tl.load(weight_ptr + column, mask=in_row, other=0.0).to(tl.float32)  # [1, C]
    if norm_bias_ptr is not None:
        y += tl.load(norm_bias_ptr + column, mask=in_row, other=0.0).to(tl.float32)  # [1, C]
    tl.store(normed_ptr + place, y, mask=inside)
    if stream_output_ptr is not None:
        tl.store(stream_output_ptr + place, total if KEEP_SUM else y, mask=inside)
    if values_ptr is not None:
        store_quantized(tl.where(inside, y, 0.0), values_ptr, scales_ptr, zeros_ptr, row, place, in_rows, inside)
    if total_ptr is not None:
        tl.store(total_ptr + place, total, mask=inside)
    if mean_ptr is not None:
        tl.store(mean_ptr + row, mean, mask=in_rows)
    if inverse_ptr is not None:
        tl.store(inverse_ptr + row, inverse, mask=in_rows)


def launch_forward(
    x: torch.Tensor | None,
    bias: torch.Tensor | None,
    stream: torch.Tensor,
    norm: NormWeights,
    dropout: Dropout,
    *,
    keep_sum: bool,
    with_statistics: bool,
    quantized: Quantized | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Statistics | None]:
    """Computes the norm of dropout(x + bias) + stream.

    Args:
        x: `[rows, size]`, or None for 0.
        bias: `[size]`, or None.
        stream: `[rows, size]`, or `[tokens, heads, size]`, where a token's heads lie side by side.
        norm: The norm.
        dropout: Of x.
        keep_sum: Whether the sum becomes the stream, or else the normed sum.
        with_statistics: Whether a backward pass follows.
        quantized: Where to leave what the next sublayer reads in 8 bits as well; None: nowhere.

    Returns:
        The stream in its dtype, what the next sublayer reads in the dtype of x (both in the shape of the stream, and
        one where they equal), and the statistics.
    """
    kind, size = norm.norm, stream.shape[-1]
    rows, heads = stream.numel() // size, stream.shape[1] if stream.ndim == 3 else 1
    shape, device = stream.shape, stream.device
    normed = torch.empty(shape, dtype=stream.dtype if x is None else x.dtype, device=device)
    output = torch.empty(shape, dtype=stream.dtype, device=device) if keep_sum or normed.dtype != stream.dtype else None
    total = mean = inverse = None
    if with_statistics:
        inverse = torch.empty(rows, dtype=torch.float32, device=device)
        mean = None if isinstance(kind, RMSNorm) else torch.empty_like(inverse)
        if not keep_sum or stream.dtype != torch.float32:  # else it is what becomes the stream
            total = torch.empty(rows, size, dtype=torch.float32, device=device)
    blocks = blocks_of_rows(size)
    add_norm_forward_kernel[(triton.cdiv(rows, blocks.rows),)](
        x,
        bias,
        stream,
        norm.weight,
        norm.bias,
        output,
        normed,
        *(quantized or (None,) * 3),
        total,
        mean,
        inverse,
        rows,
        0 if x is None else x.stride(0),
        heads,
        stream.stride(0),
        kind.eps,
        dropout.seed,
        dropout.probability,
        SIZE=size,
        RMS=isinstance(kind, RMSNorm),
        KEEP_SUM=keep_sum,
        DROPOUT=dropout.probability > 0.0,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    stream = normed if output is None else output
    if inverse is None:
        return stream, normed, None
    return stream, normed, Statistics(stream if total is None else total, mean, inverse)


class AddNormFunction(Function):
    """The norm of dropout(x + bias) + stream: one tensor where the stream is what the next sublayer reads, else two."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor | None,
        bias: torch.Tensor | None,
        stream: torch.Tensor,
        weight: torch.Tensor,
        norm_bias: torch.Tensor | None,
        norm: Norm,
        keep_sum: bool,
        dropout: Dropout,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """See `Function`."""
        output, normed, statistics = launch_forward(
            x,
            bias,
            stream,
            NormWeights(norm, weight, norm_bias),
            dropout,
            keep_sum=keep_sum,
            with_statistics=any(ctx.needs_input_grad),
        )
        ctx.set_materialize_grads(False)
        ctx.dropout, ctx.keep_sum, ctx.shape = dropout, keep_sum, stream.shape
        ctx.dtypes = None if x is None else x.dtype, stream.dtype
        ctx.biases = bias is not None, norm_bias is not None
        if statistics is not None:
            ctx.save_for_backward(weight, *statistics)
        return normed if output is normed else (output, normed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """See `Function`."""
        *stream_gradient, normed_gradient = gradients
        weight, *statistics = ctx.saved_tensors
        total_gradient, x_gradient, weight_gradient, norm_bias_gradient, bias_gradient = launch_backward(
            stream_gradient[0] if stream_gradient else None,
            normed_gradient,
            Statistics(*statistics),
            weight,
            x_dtype=ctx.dtypes[0],
            stream_dtype=ctx.dtypes[1],
            dropout=ctx.dropout,
            keep_sum=ctx.keep_sum,
        )
        has_bias, has_norm_bias = ctx.biases
        return (
            x_gradient,
            bias_gradient if has_bias else None,
            total_gradient.view(ctx.shape),
            weight_gradient,
            norm_bias_gradient if has_norm_bias else None,
            None,
            None,
            None,
        )


def add_norm(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    stream: torch.Tensor,
    norm: NormWeights,
    dropout: Dropout,
    *,
    keep_sum: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of dropout(x + bias) + stream.

    Args:
        x: `[rows, size]`.
        bias: `[size]`, or None.
        stream: `[rows, size]`.
        norm: The norm.
        dropout: Of x with its bias.
        keep_sum: Whether the sum becomes the stream, or else the normed sum.

    Returns:
        The stream, in its dtype, and the normed sum, in the dtype of x; one tensor where they equal.
    """
    result = AddNormFunction.apply(x, bias, stream, norm.weight, norm.bias, norm.norm, keep_sum, dropout)
    return (result, result) if isinstance(result, torch.Tensor) else result


def add_norm_8bit(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    stream: torch.Tensor,
    norm: NormWeights,
    dtype: torch.dtype,
    *,
    keep_sum: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for scoring, where what the next sublayer reads is there in int8 or fp8 as well."""
    result = empty_quantized(x.shape[0], x.shape[1], dtype, x.device)
    output, normed, _ = launch_forward(
        x, bias, stream, norm, NO_DROPOUT, keep_sum=keep_sum, with_statistics=False, quantized=result
    )
    return output, quantized_rows(normed, result)


def normalize(x: torch.Tensor, norm: NormWeights) -> torch.Tensor:
    """The norm over the last dimension of x, `[rows, size]` or `[tokens, heads, size]`, in its dtype."""
    if x.stride(-1) != 1 or (x.ndim == 3 and x.stride(1) != x.shape[2]):
        x = x.contiguous()
    normed: torch.Tensor = AddNormFunction.apply(None, None, x, norm.weight, norm.bias, norm.norm, False, NO_DROPOUT)
    return normed
