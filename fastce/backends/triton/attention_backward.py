"""The gradients of attention: of queries, then of keys and values, and of what goes by distance.

The weights are computed again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from fastce.backends.triton.attention_tiles import (
    backward_tiles,
    key_range,
    load_head,
    query_range,
    seen_scores,
    store_head,
)
from fastce.backends.triton.blocks import product
from fastce.backends.triton.dropout import Dropout, keep_factors
from fastce.backends.triton.relative import ByDistance, gradients_by_distance, store_by_distance
from fastce.backends.triton.sequences import Rows, extent
from fastce.packing import Spans
from fastce.spec import Attention
from fastce.steps import kv_heads, score_terms


@triton.jit(do_not_specialize=["tiles", "total_rows", "total_tokens", "reach", "table_rows", "longest", "seed"])
def query_gradient_kernel(
    query_ptr,  # [total_rows, heads, head_dim]
    key_ptr,  # [total_tokens, kv_heads, head_dim]
    value_ptr,  # [total_tokens, kv_heads, head_dim]
    output_ptr,  # [total_rows, heads, head_dim]
    output_gradient_ptr,  # [total_rows, heads, head_dim]
    log_sum_ptr,  # [heads, total_rows], float32
    mean_gradient_ptr,  # [heads, total_rows], float32: written here, read for keys and values
    query_gradient_ptr,  # [total_rows, heads, head_dim]
    cu_seqlens_ptr,  # [num_pairs + 1]
    table_rows_ptr,  # [2 reach + 1], int32; or None, and all that follows, where nothing goes by distance
    bias_ptr,  # [table rows, heads], float32, or None
    met_queries_ptr,  # [heads, total_rows, table rows], or None
    met_keys_ptr,  # [heads, total_tokens, table rows], or None
    by_distance_ptr,  # [heads, total_rows, 2 longest - 1]: zeros, and here the gradients of scores; or None
    tiles,  # of queries of the longest sequence
    total_rows,
    total_tokens,
    reach,
    table_rows,
    longest,
    query_stride,
    key_stride,
    value_stride,
    scale,
    seed,
    probability,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Each program has a tile of queries of one head."""
    sequence, tile, head = tl.program_id(0) // tiles, tl.program_id(0) % tiles, tl.program_id(1)
    first_token, length, first_row, rows, first_place = extent(cu_seqlens_ptr, sequence, ROWS)
    if tile * BLOCK_QUERIES >= rows:
        return
    index = tile * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)  # [M]
    in_rows = index < rows  # [M]
    place = first_place + index[:, None]  # [M, 1]
    last = first_place + tl.minimum((tile + 1) * BLOCK_QUERIES, rows) - 1
    begin, end = key_range(first_place + tile * BLOCK_QUERIES, last, length, WINDOW, CAUSAL)
    width = HEADS * HEAD_DIM
    q = load_head(query_ptr, first_row, index, in_rows, query_stride, head, HEAD_DIM, BLOCK_DIM)  # [M, D]
    o = load_head(output_ptr, first_row, index, in_rows, width, head, HEAD_DIM, BLOCK_DIM)  # [M, D]
    do = load_head(output_gradient_ptr, first_row, index, in_rows, width, head, HEAD_DIM, BLOCK_DIM)  # [M, D]
    row = first_row + index[:, None]  # [M, 1]
    per_row = head * total_rows + first_row + index  # [M]
    log_sum = tl.load(log_sum_ptr + per_row, mask=in_rows, other=0.0)  # [M]
    mean_gradient = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)  # of the scores, by their weights [M]
    tl.store(mean_gradient_ptr + per_row, mean_gradient, mask=in_rows)
    dq = tl.zeros((BLOCK_QUERIES, BLOCK_DIM), dtype=tl.float32)  # [M, D]
    zeros = tl.zeros((BLOCK_QUERIES, BLOCK_KEYS), dtype=tl.float32)  # [M, N]
    for first_key in range(begin, end, BLOCK_KEYS):
        key_index = first_key + tl.arange(0, BLOCK_KEYS)  # [N]
        in_keys = key_index < length  # [N]
        k = load_head(key_ptr, first_token, key_index, in_keys, key_stride, head // GROUP, HEAD_DIM, BLOCK_DIM)
        v = load_head(value_ptr, first_token, key_index, in_keys, value_stride, head // GROUP, HEAD_DIM, BLOCK_DIM)
        scores = product(q, tl.trans(k), zeros)  # [M, N]
        scores = seen_scores(
            scores,
            table_rows_ptr,
            bias_ptr,
            met_queries_ptr,
            met_keys_ptr,
            reach,
            table_rows,
            scale,
            row,
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
        )  # [M, N]
        weights = tl.exp2(scores - log_sum[:, None])  # [M, N]
        weight_gradient = product(do, tl.trans(v), zeros)  # [M, N]
        if DROPOUT:
            weight_gradient *= keep_factors(seed, probability, row, key_index[None, :], head)
        score_gradient = weights * (weight_gradient - mean_gradient[:, None])  # [M, N]
        if by_distance_ptr is not None:
            inside = in_rows[:, None] & in_keys[None, :]  # [M, N]
            distance = key_index[None, :] - place  # [M, N]
            store_by_distance(by_distance_ptr, score_gradient, head * total_rows + row, distance, inside, longest)
        dq = product(score_gradient.to(k.dtype), k, dq)
    store_head(query_gradient_ptr, dq * scale, first_row, index, in_rows, width, head, HEAD_DIM, BLOCK_DIM)


@triton.jit(do_not_specialize=["tiles", "total_rows", "total_tokens", "reach", "table_rows", "longest", "seed"])
def key_value_gradient_kernel(
    query_ptr,  # [total_rows, heads, head_dim]
    key_ptr,  # [total_tokens, kv_heads, head_dim]
    value_ptr,  # [total_tokens, kv_heads, head_dim]
    output_gradient_ptr,  # [total_rows, heads, head_dim]
    log_sum_ptr,  # [heads, total_rows], float32
    mean_gradient_ptr,  # [heads, total_rows], float32
    key_gradient_ptr,  # [total_tokens, kv_heads, head_dim]
    value_gradient_ptr,  # [total_tokens, kv_heads, head_dim]
    cu_seqlens_ptr,  # [num_pairs + 1]
    table_rows_ptr,  # [2 reach + 1], int32; or None, and all that follows, where nothing goes by distance
    bias_ptr,  # [table rows, heads], float32, or None
    met_queries_ptr,  # [heads, total_rows, table rows], or None
    met_keys_ptr,  # [heads, total_tokens, table rows], or None
    by_distance_ptr,  # [heads, total_tokens, 2 longest - 1]: zeros, and here the gradients of scores; or None
    tiles,  # of keys of the longest sequence
    total_rows,
    total_tokens,
    reach,
    table_rows,
    longest,
    query_stride,
    key_stride,
    value_stride,
    scale,
    seed,
    probability,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Each program has a tile of keys of one head, and goes through the queries of all heads that share it."""
    sequence, tile, kv_head = tl.program_id(0) // tiles, tl.program_id(0) % tiles, tl.program_id(1)
    first_token, length, first_row, rows, first_place = extent(cu_seqlens_ptr, sequence, ROWS)
    first_key = tile * BLOCK_KEYS
    if first_key >= length:
        return
    key_index = first_key + tl.arange(0, BLOCK_KEYS)  # [N]
    in_keys = key_index < length  # [N]
    k = load_head(key_ptr, first_token, key_index, in_keys, key_stride, kv_head, HEAD_DIM, BLOCK_DIM)  # [N, D]
    v = load_head(value_ptr, first_token, key_index, in_keys, value_stride, kv_head, HEAD_DIM, BLOCK_DIM)  # [N, D]
    dk = tl.zeros((BLOCK_KEYS, BLOCK_DIM), dtype=tl.float32)  # [N, D]
    dv = tl.zeros((BLOCK_KEYS, BLOCK_DIM), dtype=tl.float32)  # [N, D]
    zeros = tl.zeros((BLOCK_KEYS, BLOCK_QUERIES), dtype=tl.float32)  # [N, M]
    begin, end = query_range(first_key, first_key + BLOCK_KEYS - 1, first_place, rows, WINDOW, CAUSAL)
    for head in range(kv_head * GROUP, (kv_head + 1) * GROUP):
        for first_query in range(begin, end, BLOCK_QUERIES):
            index = first_query + tl.arange(0, BLOCK_QUERIES)  # [M]
            in_rows = index < rows  # [M]
            q = load_head(query_ptr, first_row, index, in_rows, query_stride, head, HEAD_DIM, BLOCK_DIM)  # [M, D]
            do = load_head(
                output_gradient_ptr, first_row, index, in_rows, HEADS * HEAD_DIM, head, HEAD_DIM, BLOCK_DIM
            )  # [M, D]
            per_row = head * total_rows + first_row + index  # [M]
            log_sum = tl.load(log_sum_ptr + per_row, mask=in_rows, other=0.0)  # [M]
            mean_gradient = tl.load(mean_gradient_ptr + per_row, mask=in_rows, other=0.0)  # [M]
            place = first_place + index[None, :]  # [1, M]
            row = first_row + index[None, :]  # [1, M]
            scores = product(k, tl.trans(q), zeros)  # [N, M]
            scores = seen_scores(
                scores,
                table_rows_ptr,
                bias_ptr,
                met_queries_ptr,
                met_keys_ptr,
                reach,
                table_rows,
                scale,
                row,
                place,
                in_rows[None, :],
                total_rows,
                first_token,
                key_index[:, None],
                in_keys[:, None],
                total_tokens,
                head,
                length,
                HEADS,
                WINDOW,
                CAUSAL,
            )  # [N, M]
            weights = tl.exp2(scores - log_sum[None, :])  # [N, M]
            weight_gradient = product(v, tl.trans(do), zeros)  # [N, M]
            kept = weights  # [N, M]
            if DROPOUT:
                factors = keep_factors(seed, probability, row, key_index[:, None], head)  # [N, M]
                weight_gradient *= factors
                kept *= factors
            dv = product(kept.to(do.dtype), do, dv)
            score_gradient = weights * (weight_gradient - mean_gradient[None, :])  # [N, M]
            if by_distance_ptr is not None:
                inside = in_rows[None, :] & in_keys[:, None]  # [N, M]
                distance = key_index[:, None] - place  # [N, M]
                key_row = head * total_tokens + first_token + key_index[:, None]  # [N, 1]
                store_by_distance(by_distance_ptr, score_gradient, key_row, distance, inside, longest)
            dk = product(score_gradient.to(q.dtype), q, dk)
    width = HEADS // GROUP * HEAD_DIM
    store_head(key_gradient_ptr, dk * scale, first_token, key_index, in_keys, width, kv_head, HEAD_DIM, BLOCK_DIM)
    store_head(value_gradient_ptr, dv, first_token, key_index, in_keys, width, kv_head, HEAD_DIM, BLOCK_DIM)


def launch_backward(
    output_gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    log_sum: torch.Tensor,
    spans: Spans,
    attention: Attention,
    rows: Rows,
    dropout: Dropout,
    distances: ByDistance,
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor | None]]:
    """The gradients of query, key and value, and those of the bias and of what queries and keys met, or None."""
    gradients = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value))
    output_gradient, mean_gradient = output_gradient.contiguous(), torch.empty_like(log_sum)
    cut = backward_tiles(query.dtype, attention, rows, spans.longest)
    query_tiles = triton.cdiv(spans.longest, cut.queries) if rows == "all" else 1
    key_tiles = triton.cdiv(spans.longest, cut.keys)
    strides = query.stride(0), key.stride(0), value.stride(0)
    scale = 1.0 / math.sqrt(attention.head_dim * score_terms(attention))
    constants: dict[str, Any] = {
        "HEADS": attention.heads,
        "GROUP": attention.heads // kv_heads(attention),
        "HEAD_DIM": attention.head_dim,
        "ROWS": rows,
        "WINDOW": attention.window,
        "CAUSAL": attention.causal,
        "DROPOUT": dropout.probability > 0.0,
        "BLOCK_QUERIES": cut.queries,
        "BLOCK_KEYS": cut.keys,
        "BLOCK_DIM": cut.dim,
        "num_warps": cut.warps,
        "num_stages": cut.stages,
    }
    of_queries, of_keys = (
        query.new_zeros(attention.heads, len(x), 2 * spans.longest - 1) if wanted else None
        for x, wanted in (
            (query, distances.bias is not None or distances.queries is not None),
            (key, distances.keys is not None),
        )
    )
    numbers = len(query), len(key), distances.reach, distances.table_rows, spans.longest
    query_gradient_kernel[len(spans.lengths) * query_tiles, attention.heads](
        query,
        key,
        value,
        output,
        output_gradient,
        log_sum,
        mean_gradient,
        gradients[0],
        spans.cu_seqlens,
        *distances[:4],
        of_queries,
        query_tiles,
        *numbers,
        *strides,
        scale,
        *dropout,
        **constants,
    )
    key_value_gradient_kernel[len(spans.lengths) * key_tiles, kv_heads(attention)](
        query,
        key,
        value,
        output_gradient,
        log_sum,
        mean_gradient,
        *gradients[1:],
        spans.cu_seqlens,
        *distances[:4],
        of_keys,
        key_tiles,
        *numbers,
        *strides,
        scale,
        *dropout,
        **constants,
    )
    return gradients, gradients_by_distance(distances, of_queries, of_keys, spans.longest, scale)
