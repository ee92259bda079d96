"""The end of a sublayer in one pass: bias, dropout, sum with the stream, norm."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.triton.blocks import blocks_of_rows
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout, keep_factors
from fastce.backends.weights import NormWeights
from fastce.spec import Norm, RMSNorm

# Reference: fastce.backends.reference.ops.add_norm and normalize.

ROW_PROGRAMS = 512
"""Programs among which the backward pass shares the rows: each leaves one row of partial sums of the parameters."""


class Statistics(NamedTuple):
    """What the backward pass of a norm needs.

    Attributes:
        total: What was normed, float32 `[rows, size]`.
        mean: Its rows' means, float32 `[rows]`; None for RMSNorm.
        inverse: Inverse of its rows' deviations or roots of mean squares, float32 `[rows]`.
    """

    total: torch.Tensor
    mean: torch.Tensor | None
    inverse: torch.Tensor


@triton.jit
def normalised(total, in_row, eps, SIZE: tl.constexpr, RMS: tl.constexpr):
    """A norm without its weight.

    Args:
        total: [R, C], 0 beyond the row.
        in_row: [1, C].
        eps: Added to the variance, or to the mean square.
        SIZE: Elements of a row.
        RMS: Whether the mean stays.

    Returns:
        The normalised rows [R, C], their means [R, 1] and their inverse deviations [R, 1].
    """
    mean = tl.sum(total, 1, keep_dims=True) / SIZE  # [R, 1]
    centred = total
    if not RMS:
        centred = tl.where(in_row, total - mean, 0.0)  # [R, C]
    inverse = 1.0 / tl.sqrt_rn(tl.sum(centred * centred, 1, keep_dims=True) / SIZE + eps)  # [R, 1]
    return centred * inverse, mean, inverse


@triton.jit(do_not_specialize=["seed"])
def add_norm_forward_kernel(
    x_ptr,  # [rows, size], or None for 0
    bias_ptr,  # [size], or None
    stream_ptr,  # [rows, size]: rows lie `heads` together, tokens at a stride
    weight_ptr,  # [size]
    norm_bias_ptr,  # [size], or None
    stream_output_ptr,  # [rows, size]: what becomes the stream, or None
    normed_ptr,  # [rows, size]
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
    if total_ptr is not None:
        tl.store(total_ptr + place, total, mask=inside)
    if mean_ptr is not None:
        tl.store(mean_ptr + row, mean, mask=in_rows)
    if inverse_ptr is not None:
        tl.store(inverse_ptr + row, inverse, mask=in_rows)


@triton.jit(do_not_specialize=["seed", "output_seed"])
def add_norm_backward_kernel(
    stream_gradient_ptr,  # [rows, size]: of what became the stream, or None
    normed_gradient_ptr,  # [rows, size], or None
    total_ptr,  # [rows, size], float32
    mean_ptr,  # [rows], float32, or None for RMSNorm
    inverse_ptr,  # [rows], float32
    weight_ptr,  # [size]
    total_gradient_ptr,  # [rows, size]: of the stream that came in
    x_gradient_ptr,  # [rows, size], or None
    weight_sums_ptr,  # [programs, size], float32
    norm_bias_sums_ptr,  # [programs, size], float32, or None
    bias_sums_ptr,  # [programs, size], float32, or None
    rows,
    seed,
    probability,
    output_seed,
    output_probability,
    SIZE: tl.constexpr,
    KEEP_SUM: tl.constexpr,
    DROPOUT: tl.constexpr,
    OUTPUT_DROPOUT: tl.constexpr,  # whether what was normed was dropped out
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has every so many blocks of whole rows, and one row of the sums of each parameter."""
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    in_row = column < SIZE  # [1, C]
    weight = tl.load(weight_ptr + column, mask=in_row, other=0.0).to(tl.float32)  # [1, C]
    weight_sum = tl.zeros((1, BLOCK_COLUMNS), dtype=tl.float32)  # [1, C]
    norm_bias_sum = tl.zeros((1, BLOCK_COLUMNS), dtype=tl.float32)  # [1, C]
    bias_sum = tl.zeros((1, BLOCK_COLUMNS), dtype=tl.float32)  # [1, C]
    for block in range(program, tl.cdiv(rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
        in_rows = row < rows  # [R, 1]
        inside = in_rows & in_row  # [R, C]
        place = row.to(tl.int64) * SIZE + column  # [R, C]
        gradient = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)  # of what was normed [R, C]
        sum_gradient = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)  # of the sum itself [R, C]
        if normed_gradient_ptr is not None:
            gradient += tl.load(normed_gradient_ptr + place, mask=inside, other=0.0).to(tl.float32)
        if stream_gradient_ptr is not None:
            kept = tl.load(stream_gradient_ptr + place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
            if KEEP_SUM:
                sum_gradient = kept
            else:
                gradient += kept
        if OUTPUT_DROPOUT:
            gradient *= keep_factors(output_seed, output_probability, row, column, 0)
        inverse = tl.load(inverse_ptr + row, mask=in_rows, other=0.0)  # [R, 1]
        y = tl.load(total_ptr + place, mask=inside, other=0.0)  # [R, C]
        if mean_ptr is not None:
            y = tl.where(inside, y - tl.load(mean_ptr + row, mask=in_rows, other=0.0), 0.0)
        y *= inverse
        weight_sum += tl.sum(gradient * y, 0, keep_dims=True)
        norm_bias_sum += tl.sum(gradient, 0, keep_dims=True)
        gradient *= weight
        along = tl.sum(gradient * y, 1, keep_dims=True) / SIZE  # [R, 1]
        inner = gradient - y * along  # [R, C]
        if mean_ptr is not None:
            inner -= tl.sum(gradient, 1, keep_dims=True) / SIZE
        total_gradient = inner * inverse + sum_gradient  # [R, C]
        tl.store(total_gradient_ptr + place, total_gradient, mask=inside)
        if x_gradient_ptr is not None:
            if DROPOUT:
                total_gradient *= keep_factors(seed, probability, row, column, 0)
            tl.store(x_gradient_ptr + place, total_gradient, mask=inside)
            bias_sum += tl.sum(tl.where(inside, total_gradient, 0.0), 0, keep_dims=True)
    tl.store(weight_sums_ptr + program * SIZE + column, weight_sum, mask=in_row)
    if norm_bias_sums_ptr is not None:
        tl.store(norm_bias_sums_ptr + program * SIZE + column, norm_bias_sum, mask=in_row)
    if bias_sums_ptr is not None:
        tl.store(bias_sums_ptr + program * SIZE + column, bias_sum, mask=in_row)


def launch_forward(
    x: torch.Tensor | None,
    bias: torch.Tensor | None,
    stream: torch.Tensor,
    norm: NormWeights,
    dropout: Dropout,
    *,
    keep_sum: bool,
    with_statistics: bool,
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


def launch_backward(
    stream_gradient: torch.Tensor | None,
    normed_gradient: torch.Tensor | None,
    statistics: Statistics,
    weight: torch.Tensor,
    x_dtype: torch.dtype | None,
    stream_dtype: torch.dtype,
    dropout: Dropout = NO_DROPOUT,
    output_dropout: Dropout = NO_DROPOUT,
    *,
    keep_sum: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Goes back through a norm and the sum before it.

    Args:
        stream_gradient: Of what became the stream, `[rows, size]`, or None for 0.
        normed_gradient: Of what the next sublayer read, `[rows, size]`, or None for 0.
        statistics: From the forward pass.
        weight: Of the norm.
        x_dtype: Of the gradient of x; None where there is no x.
        stream_dtype: Of the gradient of the stream.
        dropout: Of x.
        output_dropout: Of what was normed.
        keep_sum: Whether the sum became the stream.

    Returns:
        The gradients of the stream and of x, `[rows, size]`, and of the norm's weight, its bias and the bias of x, each
        float32 `[size]`; zeros or None for what there is not.
    """
    total, mean, inverse = statistics
    size = len(weight)
    rows, device = len(inverse), inverse.device
    blocks = blocks_of_rows(size)
    programs = min(triton.cdiv(rows, blocks.rows), ROW_PROGRAMS)
    total_gradient = torch.empty(rows, size, dtype=stream_dtype, device=device)
    x_gradient = None if x_dtype is None else torch.empty(rows, size, dtype=x_dtype, device=device)
    sums = torch.empty(3, programs, size, dtype=torch.float32, device=device)
    add_norm_backward_kernel[(programs,)](
        None if stream_gradient is None else stream_gradient.contiguous(),
        None if normed_gradient is None else normed_gradient.contiguous(),
        total,
        mean,
        inverse,
        weight,
        total_gradient,
        x_gradient,
        sums[0],
        sums[1],
        sums[2],
        rows,
        dropout.seed,
        dropout.probability,
        output_dropout.seed,
        output_dropout.probability,
        SIZE=size,
        KEEP_SUM=keep_sum,
        DROPOUT=dropout.probability > 0.0,
        OUTPUT_DROPOUT=output_dropout.probability > 0.0,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    weight_gradient, norm_bias_gradient, bias_gradient = sums.sum(1)
    return total_gradient, x_gradient, weight_gradient, norm_bias_gradient, bias_gradient


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


def normalize(x: torch.Tensor, norm: NormWeights) -> torch.Tensor:
    """The norm over the last dimension of x, `[rows, size]` or `[tokens, heads, size]`, in its dtype."""
    if x.stride(-1) != 1 or (x.ndim == 3 and x.stride(1) != x.shape[2]):
        x = x.contiguous()
    normed: torch.Tensor = AddNormFunction.apply(None, None, x, norm.weight, norm.bias, norm.norm, False, NO_DROPOUT)
    return normed
