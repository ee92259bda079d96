"""What the kernels of attention share: how they cut it into tiles, and what they do to one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastce.backends.triton.relative import scores_by_distance
from fastce.backends.triton.sequences import Rows
from fastce.spec import Attention, DisentangledAttention, RelativeBias

UNSEEN = tl.constexpr(-1e30)
"""Score of a key that a query does not see. Finite: no difference of two is undefined, and every exponential of one
less the row's maximum is 0 as soon as the row has seen a key."""

LOG2_E = tl.constexpr(1.4426950408889634)

ONE_TILE = 128
"""Keys that fit into one tile; half as many in float32 and with dropout, 32 where scores are gathered."""


class Tiles(NamedTuple):
    """How a kernel cuts attention into tiles.

    Attributes:
        queries: Queries of a tile, a power of two.
        keys: Keys of a tile, a power of two.
        dim: Width of a head, rounded up to a power of two.
        heads: Heads of a program.
        warps: Warps of a program.
        stages: Tiles that are loaded ahead.
    """

    queries: int
    keys: int
    dim: int
    heads: int
    warps: int
    stages: int


def forward_tiles(dtype: torch.dtype, attention: Attention, rows: Rows, longest: int, *, dropped: bool) -> Tiles:
    """Tiles of the forward pass: what compiles without spilling registers, as large as that leaves it."""
    dim, length = padded(attention.head_dim), padded(longest)
    is_float32 = dtype == torch.float32  # multiplied without tensor cores, of operands in registers
    gathers = isinstance(attention.relation, DisentangledAttention)  # whose addresses take registers, as a generator
    is_widest = dim > 128
    queries = 16 if rows != "all" or (is_float32 and dim > 64) else 32 if is_float32 else 64
    keys = min(length, 32 if gathers else ONE_TILE // 2 if is_float32 or dropped else ONE_TILE)
    if longest > keys:
        keys = min(keys, 64)
    if is_widest:
        keys = min(keys, 16 if is_float32 else 32)
    queries = min(queries, length)
    heads = math.gcd(attention.heads, max(1, 64 // length))
    warps = 8 if is_float32 or is_widest else min(4, max(queries // 16, keys // 32, 1))
    if (is_float32 and is_widest) or (not is_float32 and (gathers or (64 < dim <= 128 and longest > keys))):
        warps *= 2
    return Tiles(queries, keys, dim, heads, warps, 1 if is_widest or (longest <= keys and heads == 1) else 2)


BACKWARD: dict[str, dict[bool, tuple[int, int, int | None]]] = {
    "narrow": {False: (64, 64, None), True: (32, 32, 8)},
    "wide": {False: (32, 64, 8), True: (16, 16, 8)},
    "gathered": {False: (32, 32, 8), True: (16, 16, 8)},
}
"""Queries and keys of a tile of the backward passes and their warps, by what takes registers and by whether it is
float32; None: a warp for 16 keys."""


def backward_tiles(dtype: torch.dtype, attention: Attention, rows: Rows, longest: int) -> Tiles:
    """Tiles of both backward passes, which hold twice as many numbers a score."""
    dim, length = padded(attention.head_dim), padded(longest)
    is_wide = dim > 64 or isinstance(attention.relation, RelativeBias)
    kind = "gathered" if isinstance(attention.relation, DisentangledAttention) else "wide" if is_wide else "narrow"
    queries, keys, warps = BACKWARD[kind][dtype == torch.float32]
    queries, keys = min(queries, length) if rows == "all" else 16, min(keys, length)
    return Tiles(queries, keys, dim, 1, warps or max(1, keys // 16), 2)


def padded(size: int) -> int:
    """A size rounded up to what tiles are made of: a power of two, of at least the 16 that tensor cores take."""
    return max(16, int(triton.next_power_of_2(size)))


@triton.jit
def load_head(x_ptr, first_row, index, inside, stride, head, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Rows of one head, `[R, D]`, zeros beyond them; index and inside are `[R]`."""
    element = tl.arange(0, BLOCK_DIM)[None, :]  # [1, D]
    base = x_ptr + first_row.to(tl.int64) * stride + head * HEAD_DIM
    return tl.load(base + index[:, None] * stride + element, mask=inside[:, None] & (element < HEAD_DIM), other=0.0)


@triton.jit
def store_head(x_ptr, x, first_row, index, inside, stride, head, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Stores what `load_head` loads."""
    element = tl.arange(0, BLOCK_DIM)[None, :]  # [1, D]
    base = x_ptr + first_row.to(tl.int64) * stride + head * HEAD_DIM
    tl.store(base + index[:, None] * stride + element, x, mask=inside[:, None] & (element < HEAD_DIM))


@triton.jit
def seen_scores(
    products,
    table_rows_ptr,  # or None, as all that follows, where nothing goes by distance
    bias_ptr,
    met_queries_ptr,
    met_keys_ptr,
    reach,
    table_rows,
    scale,
    query_row,
    query_place,
    in_rows,
    total_rows,
    first_token,
    key_place,
    in_keys,
    total_tokens,
    head,
    length,
    HEADS: tl.constexpr,
    WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """The scores in base 2 of keys that queries see, from the products [M, N] or [N, M] of both.

    What is of queries is [M, 1] or [1, M], what is of keys the other; for what goes by distance see
    `scores_by_distance`. WINDOW is the farthest key that a query sees on either side, or None for all; CAUSAL is
    whether it sees no key behind itself.
    """
    scores = products * scale
    if table_rows_ptr is not None:
        scores = scores_by_distance(
            scores,
            table_rows_ptr,
            bias_ptr,
            met_queries_ptr,
            met_keys_ptr,
            reach,
            table_rows,
            scale,
            query_row,
            query_place,
            in_rows,
            total_rows,
            first_token,
            key_place,
            in_keys,
            total_tokens,
            head,
            HEADS,
        )
    seen = key_place < length
    if CAUSAL:
        seen &= key_place <= query_place
    if WINDOW is not None:
        seen &= (key_place - query_place <= WINDOW) & (query_place - key_place <= WINDOW)
    return tl.where(seen, scores * LOG2_E, UNSEEN)


@triton.jit
def key_range(first, last, length, WINDOW: tl.constexpr, CAUSAL: tl.constexpr):
    """The keys that queries from the place `first` to `last` see: where they begin and end."""
    begin, end = 0, length
    if CAUSAL:
        end = tl.minimum(end, last + 1)
    if WINDOW is not None:
        begin = tl.maximum(begin, first - WINDOW)
        end = tl.minimum(end, last + 1 + WINDOW)
    return begin, end


@triton.jit
def query_range(first, last, first_place, rows, WINDOW: tl.constexpr, CAUSAL: tl.constexpr):
    """The queries that see keys from the place `first` to `last`: where they begin and end, from the first row on."""
    begin, end = 0, rows
    if CAUSAL:
        begin = tl.maximum(begin, first - first_place)
    if WINDOW is not None:
        begin = tl.maximum(begin, first - WINDOW - first_place)
        end = tl.minimum(end, last + 1 + WINDOW - first_place)
    return begin, end
