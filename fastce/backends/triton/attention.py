"""Attention within sequences that lie end to end: up to 128 keys in one tile, more with the online softmax.

Scores and their softmax are in float32 and base 2. Each program has tiles of the results that are its alone: queries'
in the forward pass and for their gradient, keys' for the gradients of keys and values. So the order of programs means
nothing, and nothing is added atomically.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.triton.attention_backward import launch_backward
from fastce.backends.triton.attention_tiles import (
    UNSEEN,
    forward_tiles,
    key_range,
    load_head,
    seen_scores,
    store_head,
)
from fastce.backends.triton.blocks import product
from fastce.backends.triton.dropout import Dropout, keep_factors
from fastce.backends.triton.relative import NO_DISTANCES, ByDistance
from fastce.backends.triton.sequences import Rows, extent
from fastce.packing import Spans
from fastce.spec import Attention
from fastce.steps import kv_heads, score_terms

# Reference: fastce.backends.reference.ops.attention.


@triton.jit(do_not_specialize=["tiles", "total_rows", "total_tokens", "reach", "table_rows", "seed"])
def attention_forward_kernel(
    query_ptr,  # [total_rows, heads, head_dim]
    key_ptr,  # [total_tokens, kv_heads, head_dim]
    value_ptr,  # [total_tokens, kv_heads, head_dim]
    output_ptr,  # [total_rows, heads, head_dim]
    log_sum_ptr,  # [heads, total_rows], float32: log2 of the sum of a query's weights; or None
    cu_seqlens_ptr,  # [num_pairs + 1]
    table_rows_ptr,  # [2 reach + 1], int32; or None, and all that follows, where nothing goes by distance
    bias_ptr,  # [table rows, heads], float32, or None
    met_queries_ptr,  # [heads, total_rows, table rows], or None
    met_keys_ptr,  # [heads, total_tokens, table rows], or None
    tiles,  # of queries of the longest sequence
    total_rows,
    total_tokens,
    reach,
    table_rows,
    query_stride,
    key_stride,
    value_stride,
    scale,
    seed,
    probability,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # heads of queries that share one of keys
    HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    WHOLE: tl.constexpr,  # whether all keys are one tile
    PROGRAM_HEADS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Each program has a tile of queries of some heads."""
    sequence, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    first_token, length, first_row, rows, first_place = extent(cu_seqlens_ptr, sequence, ROWS)
    if tile * BLOCK_QUERIES >= rows:
        return
    index = tile * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)  # [M]
    in_rows = index < rows  # [M]
    place = first_place + index[:, None]  # [M, 1]
    last = first_place + tl.minimum((tile + 1) * BLOCK_QUERIES, rows) - 1
    begin, end = key_range(first_place + tile * BLOCK_QUERIES, last, length, WINDOW, CAUSAL)
    for head in range(tl.program_id(1) * PROGRAM_HEADS, (tl.program_id(1) + 1) * PROGRAM_HEADS):
        q = load_head(query_ptr, first_row, index, in_rows, query_stride, head, HEAD_DIM, BLOCK_DIM)  # [M, D]
        highest = tl.full((BLOCK_QUERIES,), UNSEEN, dtype=tl.float32)  # [M]
        weight_sum = tl.zeros((BLOCK_QUERIES,), dtype=tl.float32)  # [M]
        context = tl.zeros((BLOCK_QUERIES, BLOCK_DIM), dtype=tl.float32)  # [M, D]
        for first_key in range(0 if WHOLE else begin, 1 if WHOLE else end, BLOCK_KEYS):
            key_index = first_key + tl.arange(0, BLOCK_KEYS)  # [N]
            in_keys = key_index < length  # [N]
            k = load_head(key_ptr, first_token, key_index, in_keys, key_stride, head // GROUP, HEAD_DIM, BLOCK_DIM)
            v = load_head(value_ptr, first_token, key_index, in_keys, value_stride, head // GROUP, HEAD_DIM, BLOCK_DIM)
            scores = product(q, tl.trans(k), tl.zeros((BLOCK_QUERIES, BLOCK_KEYS), dtype=tl.float32))  # [M, N]
            scores = seen_scores(
                scores,
                table_rows_ptr,
                bias_ptr,
                met_queries_ptr,
                met_keys_ptr,
                reach,
                table_rows,
                scale,
                first_row + index[:, None],
                place,
                in_rows[:, None],
                total_rows,
                first_token,
                key_index[None, :],
                in_keys[None, :],
                total_tokens,
                head,
                length,
                HEADS,
                WINDOW,
                CAUSAL,
            )
            if WHOLE:
                highest = tl.max(scores, 1)
            else:
                before = highest
                highest = tl.maximum(highest, tl.max(scores, 1))
                shrink = tl.exp2(before - highest)  # [M]
                weight_sum *= shrink
                context *= shrink[:, None]
            weights = tl.exp2(scores - highest[:, None])  # [M, N]
            weight_sum += tl.sum(weights, 1)
            if DROPOUT:
                row = first_row + index[:, None]  # [M, 1]
                weights *= keep_factors(seed, probability, row, key_index[None, :], head)
            context = product(weights.to(v.dtype), v, context)
        context /= weight_sum[:, None]
        store_head(output_ptr, context, first_row, index, in_rows, HEADS * HEAD_DIM, head, HEAD_DIM, BLOCK_DIM)
        if log_sum_ptr is not None:
            log_sum = highest + tl.log2(weight_sum)  # [M]
            tl.store(log_sum_ptr + head * total_rows + first_row + index, log_sum, mask=in_rows)


def launch_forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Spans,
    attention: Attention,
    rows: Rows,
    dropout: Dropout,
    distances: ByDistance = NO_DISTANCES,
    *,
    with_log_sum: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output `[total_rows, heads, head_dim]` and, for a backward pass, the logarithms `[heads, total_rows]`."""
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    log_sum = None
    if with_log_sum:
        log_sum = torch.empty(attention.heads, len(query), dtype=torch.float32, device=query.device)
    cut = forward_tiles(query.dtype, attention, rows, spans.longest, dropped=dropout.probability > 0.0)
    tiles = triton.cdiv(spans.longest, cut.queries) if rows == "all" else 1
    attention_forward_kernel[len(spans.lengths) * tiles, attention.heads // cut.heads](
        query,
        key,
        value,
        output,
        log_sum,
        spans.cu_seqlens,
        *distances[:4],
        tiles,
        len(query),
        len(key),
        distances.reach,
        distances.table_rows,
        query.stride(0),
        key.stride(0),
        value.stride(0),
        1.0 / math.sqrt(attention.head_dim * score_terms(attention)),
        dropout.seed,
        dropout.probability,
        HEADS=attention.heads,
        GROUP=attention.heads // kv_heads(attention),
        HEAD_DIM=attention.head_dim,
        ROWS=rows,
        WINDOW=attention.window,
        CAUSAL=attention.causal,
        DROPOUT=dropout.probability > 0.0,
        WHOLE=spans.longest <= cut.keys,
        PROGRAM_HEADS=cut.heads,
        BLOCK_QUERIES=cut.queries,
        BLOCK_KEYS=cut.keys,
        BLOCK_DIM=cut.dim,
        num_warps=cut.warps,
        num_stages=cut.stages,
    )
    return output, log_sum


class AttentionFunction(Function):
    """Attention of `[total_rows, heads, head_dim]`; the backward pass computes the weights again."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spans: Spans,
        attention: Attention,
        rows: Rows,
        dropout: Dropout,
        *distances: Any,
    ) -> torch.Tensor:
        """See `Function`; the last arguments are the fields of `ByDistance`."""
        by_distance, with_log_sum = ByDistance(*distances), any(ctx.needs_input_grad)
        arguments = spans, attention, rows, dropout
        output, log_sum = launch_forward(query, key, value, *arguments, by_distance, with_log_sum=with_log_sum)
        ctx.arguments, ctx.distances = arguments, by_distance._replace(bias=None, queries=None, keys=None)
        saved = by_distance.bias, by_distance.queries, by_distance.keys
        ctx.save_for_backward(query, key, value, output, log_sum, *saved)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See `Function`."""
        *saved, bias, queries, keys = ctx.saved_tensors
        distances = ctx.distances._replace(bias=bias, queries=queries, keys=keys)
        arguments = *ctx.arguments, distances
        gradients, of_distances = launch_backward(output_gradient, *saved, *arguments)
        return *gradients, None, None, None, None, None, *of_distances, None


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Spans,
    attention: Attention,
    rows: Rows,
    dropout: Dropout,
    distances: ByDistance = NO_DISTANCES,
) -> torch.Tensor:
    """Attention within each sequence, of queries and keys that are rotated already.

    Args:
        query: `[total_rows, heads, head_dim]`; here and below a row's heads lie side by side.
        key: `[total_tokens, kv_heads, head_dim]`.
        value: `[total_tokens, kv_heads, head_dim]`.
        spans: The sequences; where there is one row a sequence, none of them is empty.
        attention: Which attention.
        rows: Which queries there are.
        dropout: Of the weights.
        distances: What scores get by distance.

    Returns:
        `[total_rows, heads, head_dim]`.
    """
    output: torch.Tensor = AttentionFunction.apply(query, key, value, spans, attention, rows, dropout, *distances)
    return output
