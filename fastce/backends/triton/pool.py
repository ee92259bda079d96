"""The mean of each sequence's rows."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.triton.blocks import blocks_of_elements
from fastce.backends.triton.sequences import extent
from fastce.packing import Spans

# Reference: fastce.backends.reference.ops.pool.


@triton.jit
def mean_forward_kernel(
    x_ptr,  # [total_tokens, size]
    mean_ptr,  # [num_pairs, size], float32
    cu_seqlens_ptr,  # [num_pairs + 1]
    x_stride,
    SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has some columns of one sequence's mean."""
    sequence = tl.program_id(0)
    start, length, _, _, _ = extent(cu_seqlens_ptr, sequence, "all")
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    base = x_ptr + start.to(tl.int64) * x_stride
    total = tl.zeros((1, BLOCK_COLUMNS), dtype=tl.float32)  # [1, C]
    for first in range(0, length, BLOCK_ROWS):
        row = first + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
        inside = (row < length) & (column < SIZE)  # [R, C]
        x = tl.load(base + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)  # [R, C]
        total += tl.sum(x, 0, keep_dims=True)
    tl.store(mean_ptr + sequence.to(tl.int64) * SIZE + column, total / tl.maximum(length, 1), mask=column < SIZE)


@triton.jit(do_not_specialize=["blocks"])
def mean_backward_kernel(
    mean_gradient_ptr,  # [num_pairs, size], float32
    x_gradient_ptr,  # [total_tokens, size]
    cu_seqlens_ptr,  # [num_pairs + 1]
    blocks,  # of rows of the longest sequence
    SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has a block of one sequence's rows."""
    sequence = tl.program_id(0) // blocks
    start, length, _, _, _ = extent(cu_seqlens_ptr, sequence, "all")
    row = tl.program_id(0) % blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    inside = (row < length) & (column < SIZE)  # [R, C]
    gradient = tl.load(mean_gradient_ptr + sequence.to(tl.int64) * SIZE + column, mask=column < SIZE, other=0.0)
    share = tl.broadcast_to(gradient / tl.maximum(length, 1), (BLOCK_ROWS, BLOCK_COLUMNS))  # [R, C]
    tl.store(x_gradient_ptr + (start + row).to(tl.int64) * SIZE + column, share, mask=inside)


def launch_forward(x: torch.Tensor, spans: Spans) -> torch.Tensor:
    """The means, float32 `[num_pairs, size]`."""
    size = x.shape[1]
    mean = torch.empty(len(spans.lengths), size, dtype=torch.float32, device=x.device)
    blocks = blocks_of_elements(size)
    mean_forward_kernel[len(spans.lengths), triton.cdiv(size, blocks.columns)](
        x,
        mean,
        spans.cu_seqlens,
        x.stride(0),
        SIZE=size,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    return mean


def launch_backward(mean_gradient: torch.Tensor, spans: Spans, total_tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """The gradient of the rows, `[total_tokens, size]` in a dtype."""
    size = mean_gradient.shape[1]
    x_gradient = torch.empty(total_tokens, size, dtype=dtype, device=mean_gradient.device)
    cut = blocks_of_elements(size)
    blocks = triton.cdiv(spans.longest, cut.rows)
    mean_backward_kernel[len(spans.lengths) * blocks, triton.cdiv(size, cut.columns)](
        mean_gradient.contiguous(),
        x_gradient,
        spans.cu_seqlens,
        blocks,
        SIZE=size,
        BLOCK_ROWS=cut.rows,
        BLOCK_COLUMNS=cut.columns,
        num_warps=cut.warps,
    )
    return x_gradient


class MeanFunction(Function):
    """The means of sequences' rows."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, spans: Spans) -> torch.Tensor:
        """See `Function`."""
        ctx.arguments = spans, len(x), x.dtype
        return launch_forward(x, spans)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """See `Function`."""
        return launch_backward(mean_gradient, *ctx.arguments), None


def mean_rows(x: torch.Tensor, spans: Spans) -> torch.Tensor:
    """The mean of each sequence's rows: `[total_tokens, size]` to float32 `[num_pairs, size]`, 0 for empty ones."""
    output: torch.Tensor = MeanFunction.apply(x, spans)
    return output
