"""What all norms share: the normalisation, and the way back through it and the sum before it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastce.backends.triton.blocks import blocks_of_rows
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout, keep_factors

# Reference: fastce.backends.reference.ops.normalize.

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


@triton.jit(do_not_specialize=["rows", "seed", "output_seed"])
def norm_backward_kernel(
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
    norm_backward_kernel[(programs,)](
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
