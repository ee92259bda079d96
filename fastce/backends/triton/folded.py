"""Attention of one query a sequence without keys and values: over the rows themselves, in scoring.

`fastce.steps.is_foldable` says why that is the same. A query and a context of a head are as wide as the rows then, so
that one kernel scores, and another, whose programs share the rows' columns out among them, adds up what was scored.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastce.backends.triton.attention_tiles import LOG2_E, UNSEEN, padded
from fastce.backends.triton.blocks import product
from fastce.backends.triton.sequences import extent
from fastce.backends.weights import Linear
from fastce.packing import Spans
from fastce.spec import Attention
from fastce.steps import kv_heads

# Reference: fastce.backends.reference.ops.attention of keys and values that are formed.


class Tiles(NamedTuple):
    """How both kernels cut their work.

    Attributes:
        keys: Rows of a tile.
        columns: Columns of the rows that are multiplied at a time.
        warps: Warps of a program.
    """

    keys: int
    columns: int
    warps: int


def tiles_of(dtype: torch.dtype) -> Tiles:
    """Tiles that compile without spilling registers."""
    return Tiles(32, 32, 4) if dtype == torch.float32 else Tiles(64, 64, 4)


@triton.jit
def folded_rows(sequence, pairs, HEADS: tl.constexpr, GROUP: tl.constexpr, BLOCK_HEADS: tl.constexpr):
    """Rows that a sequence's heads have in `[kv_heads, pairs, heads that share them]`, [H], and whether they are."""
    head = tl.arange(0, BLOCK_HEADS)  # [H]
    return (head // GROUP * pairs + sequence) * GROUP + head % GROUP, head < HEADS


@triton.jit(do_not_specialize=["tiles", "pairs", "total_tokens"])
def folded_scores_kernel(
    query_ptr,  # [kv_heads, pairs, heads / kv_heads, size]: queries by their key projections
    x_ptr,  # [total_tokens, size]
    scores_ptr,  # [heads, total_tokens], float32, in base 2
    cu_seqlens_ptr,  # [pairs + 1]
    tiles,  # of keys of the longest sequence
    pairs,
    total_tokens,
    scale,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has a tile of a sequence's tokens, all heads."""
    sequence, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    start, length, _, _, _ = extent(cu_seqlens_ptr, sequence, "all")
    key = tile * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)  # [N]
    in_keys = key < length  # [N]
    row, in_heads = folded_rows(sequence, pairs, HEADS, GROUP, BLOCK_HEADS)  # [H], [H]
    queries = query_ptr + row.to(tl.int64)[:, None] * SIZE  # [H, 1]
    rows = x_ptr + (start + key).to(tl.int64)[:, None] * SIZE  # [N, 1]
    scores = tl.zeros((BLOCK_HEADS, BLOCK_KEYS), dtype=tl.float32)  # [H, N]
    for first in range(0, SIZE, BLOCK_COLUMNS):
        column = first + tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
        q = tl.load(queries + column, mask=in_heads[:, None] & (column < SIZE), other=0.0)  # [H, C]
        x = tl.load(rows + column, mask=in_keys[:, None] & (column < SIZE), other=0.0)  # [N, C]
        scores = product(q, tl.trans(x), scores)
    place = tl.arange(0, BLOCK_HEADS)[:, None].to(tl.int64) * total_tokens + start + key[None, :]  # [H, N]
    tl.store(scores_ptr + place, scores * (scale * LOG2_E), mask=in_heads[:, None] & in_keys[None, :])


@triton.jit(do_not_specialize=["pairs", "total_tokens"])
def folded_context_kernel(
    x_ptr,  # [total_tokens, size]
    scores_ptr,  # [heads, total_tokens], float32, in base 2
    context_ptr,  # [kv_heads, pairs, heads / kv_heads, size]
    cu_seqlens_ptr,  # [pairs + 1]
    pairs,
    total_tokens,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has some columns of one sequence's contexts, all heads, with the online softmax."""
    sequence = tl.program_id(0)
    start, length, _, _, _ = extent(cu_seqlens_ptr, sequence, "all")
    row, in_heads = folded_rows(sequence, pairs, HEADS, GROUP, BLOCK_HEADS)  # [H], [H]
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    in_row = column < SIZE  # [1, C]
    of_heads = tl.arange(0, BLOCK_HEADS)[:, None].to(tl.int64) * total_tokens + start  # [H, 1]
    highest = tl.full((BLOCK_HEADS,), UNSEEN, dtype=tl.float32)  # [H]
    weight_sum = tl.zeros((BLOCK_HEADS,), dtype=tl.float32)  # [H]
    context = tl.zeros((BLOCK_HEADS, BLOCK_COLUMNS), dtype=tl.float32)  # [H, C]
    for first in range(0, length, BLOCK_KEYS):
        key = first + tl.arange(0, BLOCK_KEYS)  # [N]
        in_keys = key < length  # [N]
        inside = in_heads[:, None] & in_keys[None, :]  # [H, N]
        scores = tl.load(scores_ptr + of_heads + key[None, :], mask=inside, other=UNSEEN)  # [H, N]
        rows = x_ptr + (start + key).to(tl.int64)[:, None] * SIZE  # [N, 1]
        x = tl.load(rows + column, mask=in_keys[:, None] & in_row, other=0.0)  # [N, C]
        before = highest
        highest = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp2(before - highest)  # [H]
        weights = tl.exp2(scores - highest[:, None])  # [H, N]
        weight_sum = weight_sum * shrink + tl.sum(weights, 1)
        context = product(weights.to(x.dtype), x, context * shrink[:, None])
    context /= tl.maximum(weight_sum, 1.0)[:, None]  # the largest weight is 1; of sequences without tokens none is
    tl.store(context_ptr + row.to(tl.int64)[:, None] * SIZE + column, context, mask=in_heads[:, None] & in_row)


def launch_folded(query: torch.Tensor, x: torch.Tensor, spans: Spans, scale: float) -> torch.Tensor:
    """Contexts in the shape of the queries, `[kv_heads, num_pairs, heads / kv_heads, size]`, of rows of that size."""
    groups, pairs, group, size = query.shape
    cut, heads = tiles_of(x.dtype), groups * group
    constants = {
        "HEADS": heads,
        "GROUP": group,
        "SIZE": size,
        "BLOCK_HEADS": padded(heads),
        "BLOCK_KEYS": cut.keys,
        "BLOCK_COLUMNS": cut.columns,
        "num_warps": cut.warps,
    }
    scores = torch.empty(heads, len(x), dtype=torch.float32, device=x.device)
    context = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    tiles = triton.cdiv(spans.longest, cut.keys)
    folded_scores_kernel[(pairs * tiles,)](query, x, scores, spans.cu_seqlens, tiles, pairs, len(x), scale, **constants)
    folded_context_kernel[pairs, triton.cdiv(size, cut.columns)](
        x, scores, context, spans.cu_seqlens, pairs, len(x), **constants
    )
    return context


def attend_folded(
    query: torch.Tensor, x: torch.Tensor, key: Linear, value: Linear, spans: Spans, attention: Attention
) -> torch.Tensor:
    """Attention of one query a sequence over the rows that keys and values would be formed of.

    Args:
        query: `[num_pairs, heads, head_dim]`.
        x: `[total_tokens, hidden_size]`, contiguous.
        key: The projection to keys, without LoRA; its bias changes nothing.
        value: The projection to values, without LoRA.
        spans: The sequences.
        attention: Which attention, of those that can be folded.

    Returns:
        `[num_pairs, heads, head_dim]` in the dtype of the projections.
    """
    groups, (pairs, _, dim) = kv_heads(attention), query.shape
    to_keys, to_values = (
        part.weight.tensor.unflatten(0, (groups, dim)) for part in (key, value)
    )  # [groups, dim, size]
    queries = query.to(to_keys.dtype).view(pairs, groups, -1, dim).transpose(0, 1)  # [groups, pairs, group, dim]
    folded = torch.bmm(queries.flatten(1, 2), to_keys).unflatten(1, (pairs, -1))  # [groups, pairs, group, size]
    context = launch_folded(folded, x.to(to_keys.dtype), spans, 1.0 / math.sqrt(dim)).flatten(1, 2)
    bias = context.new_zeros(()) if value.bias is None else value.bias.tensor.view(groups, 1, dim)
    values = torch.baddbmm(bias, context, to_values.transpose(1, 2))  # [groups, pairs * group, dim]
    return values.view(queries.shape).transpose(0, 1).reshape(query.shape)
