"""The rows of up to three tables, added, normed and dropped out in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.triton.blocks import blocks_of_rows
from fastce.backends.triton.dropout import Dropout, keep_factors
from fastce.backends.triton.norm import Statistics, launch_backward, normalised
from fastce.backends.weights import NormWeights
from fastce.spec import Norm, RMSNorm

# Reference: fastce.backends.reference.ops.embed.


@triton.jit
def table_rows(ids_ptr, table_ptr, row, column, in_rows, inside, SIZE: tl.constexpr):
    """The rows of a table that tokens have, `[R, C]` in float32."""
    number = tl.load(ids_ptr + row, mask=in_rows, other=0).to(tl.int64)  # [R, 1]
    return tl.load(table_ptr + number * SIZE + column, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "seed"])
def embed_kernel(
    first_ids_ptr,  # [rows], int32
    first_table_ptr,  # [rows of the table, size]
    second_ids_ptr,  # [rows], int32, or None
    second_table_ptr,  # [rows of the table, size], or None
    third_ids_ptr,  # [rows], int32, or None
    third_table_ptr,  # [rows of the table, size], or None
    weight_ptr,  # [size]
    norm_bias_ptr,  # [size], or None
    output_ptr,  # [rows, size], float32
    total_ptr,  # [rows, size], float32, or None
    mean_ptr,  # [rows], float32, or None
    inverse_ptr,  # [rows], float32, or None
    rows,
    eps,
    seed,
    probability,
    SIZE: tl.constexpr,
    RMS: tl.constexpr,
    DROPOUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has a block of whole rows."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
    column = tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    in_row, in_rows = column < SIZE, row < rows  # [1, C], [R, 1]
    inside = in_rows & in_row  # [R, C]
    place = row.to(tl.int64) * SIZE + column  # [R, C]
    total = table_rows(first_ids_ptr, first_table_ptr, row, column, in_rows, inside, SIZE)  # [R, C]
    if second_ids_ptr is not None:
        total += table_rows(second_ids_ptr, second_table_ptr, row, column, in_rows, inside, SIZE)
    if third_ids_ptr is not None:
        total += table_rows(third_ids_ptr, third_table_ptr, row, column, in_rows, inside, SIZE)
    y, mean, inverse = normalised(total, in_row, eps, SIZE, RMS)  # [R, C], [R, 1], [R, 1]
    y *= tl.load(weight_ptr + column, mask=in_row, other=0.0)  # [1, C]
    if norm_bias_ptr is not None:
        y += tl.load(norm_bias_ptr + column, mask=in_row, other=0.0)  # [1, C]
    if DROPOUT:
        y *= keep_factors(seed, probability, row, column, 0)
    tl.store(output_ptr + place, y, mask=inside)
    if total_ptr is not None:
        tl.store(total_ptr + place, total, mask=inside)
    if mean_ptr is not None:
        tl.store(mean_ptr + row, mean, mask=in_rows)
    if inverse_ptr is not None:
        tl.store(inverse_ptr + row, inverse, mask=in_rows)


def launch_forward(
    ids: Sequence[torch.Tensor],
    tables: Sequence[torch.Tensor],
    norm: NormWeights,
    dropout: Dropout,
    *,
    with_statistics: bool,
) -> tuple[torch.Tensor, Statistics | None]:
    """Computes dropout(norm(sum of rows)), float32 `[total_tokens, size]`.

    Args:
        ids: For each table int32 `[total_tokens]`.
        tables: One to three tables, `[rows, size]`.
        norm: The norm.
        dropout: Of what was normed.
        with_statistics: Whether a backward pass follows.
    """
    rows, size, device = len(ids[0]), tables[0].shape[1], ids[0].device
    output = torch.empty(rows, size, dtype=torch.float32, device=device)
    statistics = None
    if with_statistics:
        inverse = torch.empty(rows, dtype=torch.float32, device=device)
        mean = None if isinstance(norm.norm, RMSNorm) else torch.empty_like(inverse)
        statistics = Statistics(torch.empty_like(output), mean, inverse)
    pairs = [part for pair in zip(ids, tables, strict=True) for part in pair]
    blocks = blocks_of_rows(size)
    embed_kernel[(triton.cdiv(rows, blocks.rows),)](
        *pairs,
        *[None] * (6 - len(pairs)),
        norm.weight,
        norm.bias,
        output,
        *(statistics or (None,) * 3),
        rows,
        norm.norm.eps,
        dropout.seed,
        dropout.probability,
        SIZE=size,
        RMS=isinstance(norm.norm, RMSNorm),
        DROPOUT=dropout.probability > 0.0,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    return output, statistics


class EmbedFunction(Function):
    """dropout(norm(sum of rows)). The backward pass of the gathering is torch's, which adds in a fixed order."""

    @staticmethod
    def forward(
        ctx: Any,
        ids: Sequence[torch.Tensor],
        norm: Norm,
        dropout: Dropout,
        weight: torch.Tensor,
        norm_bias: torch.Tensor | None,
        *tables: torch.Tensor,
    ) -> torch.Tensor:
        """See `Function`."""
        weights = NormWeights(norm, weight, norm_bias)
        output, statistics = launch_forward(ids, tables, weights, dropout, with_statistics=any(ctx.needs_input_grad))
        ctx.ids, ctx.dropout, ctx.has_norm_bias = ids, dropout, norm_bias is not None
        ctx.rows = [len(table) for table in tables]
        if statistics is not None:
            ctx.save_for_backward(weight, *statistics)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See `Function`."""
        weight, *statistics = ctx.saved_tensors
        gradient, _, weight_gradient, norm_bias_gradient, _ = launch_backward(
            None,
            output_gradient,
            Statistics(*statistics),
            weight,
            x_dtype=None,
            stream_dtype=torch.float32,
            output_dropout=ctx.dropout,
        )
        tables = (
            torch.ops.aten.embedding_dense_backward(gradient, ids, rows, -1, False) if wanted else None
            for ids, rows, wanted in zip(ctx.ids, ctx.rows, ctx.needs_input_grad[5:], strict=True)
        )
        return None, None, None, weight_gradient, norm_bias_gradient if ctx.has_norm_bias else None, *tables


def embed(tables: Sequence[tuple[torch.Tensor, torch.Tensor]], norm: NormWeights, dropout: Dropout) -> torch.Tensor:
    """The norm of the sum of each token's rows, dropped out.

    Args:
        tables: One to three pairs of int32 ids `[total_tokens]` and a table `[rows, size]`.
        norm: The norm.
        dropout: Of what was normed.

    Returns:
        float32 `[total_tokens, size]`.
    """
    ids = [numbers for numbers, _ in tables]
    rows = (table for _, table in tables)
    output: torch.Tensor = EmbedFunction.apply(ids, norm.norm, dropout, norm.weight, norm.bias, *rows)
    return output
