"""The mathematics, once, in plain PyTorch: what every kernel is tested against and what runs anywhere.

All of it is differentiable and follows the dtype of its inputs, float64 included. See `fastce.backends.ops.Ops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F

from fastce.backends.ops import BiasTable, RelativeTables
from fastce.backends.weights import Linear, NormWeights, products
from fastce.packing import Spans
from fastce.spec import (
    Activation,
    Attention,
    DisentangledAttention,
    Pooling,
    RelativeBias,
    RMSNorm,
    RotaryEmbedding,
)
from fastce.steps import Keep, score_terms

QUERIES_AT_A_TIME = 512
"""Queries that see a range of keys only are computed so many at a time: memory stays linear in the length."""

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Applies an activation elementwise; `gelu` is the exact one with erf (https://arxiv.org/abs/1606.08415)."""
    return ACTIVATIONS[activation](x)


def embedding_sum(tables: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The sum of each token's rows, `[total_tokens, size]`."""
    first, *others = (F.embedding(ids, table) for ids, table in tables)
    return sum(others, start=first)


def embed(
    tables: Sequence[tuple[torch.Tensor, torch.Tensor]], norm: NormWeights | None, dropout: float
) -> torch.Tensor:
    """See `Ops`."""
    x = embedding_sum(tables)
    return F.dropout(x if norm is None else normalize(x, norm), dropout)


def linear(x: torch.Tensor, linear: Linear) -> torch.Tensor:
    """See `Ops`."""
    return linear(x)


def activated(x: torch.Tensor, linear: Linear, activation: Activation) -> torch.Tensor:
    """See `Ops`."""
    return activate(linear(x), activation)


def gated(x: torch.Tensor, gate: Linear, up: Linear, activation: Activation) -> torch.Tensor:
    """See `Ops`."""
    gate_x, up_x = products(x, (gate, up))
    return activate(gate_x, activation) * up_x


def normalize(x: torch.Tensor, norm: NormWeights) -> torch.Tensor:
    """See `Ops`."""
    kind, weight, bias = norm
    if isinstance(kind, RMSNorm):
        return F.rms_norm(x, weight.shape, weight, kind.eps)
    return F.layer_norm(x, weight.shape, weight, bias, kind.eps)


def add_norm(
    x: torch.Tensor,
    linear: Linear,
    stream: torch.Tensor,
    norm: NormWeights | None,
    keep: Keep,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `Ops`. The sum is in the dtype of the stream."""
    total = F.dropout(linear(x), dropout).to(stream.dtype) + stream
    normed = total if norm is None else normalize(total, norm)
    return (total if keep == "sum" else normed), normed


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Spans,
    attention: Attention,
    rows: Pooling | None,
    dropout: float,
    relative: RelativeTables | None,
) -> torch.Tensor:
    """See `Ops`. Neighbours of equal length are computed together, so batches in length order need few calls."""
    if isinstance(attention.relation, RotaryEmbedding):
        places = positions(spans)
        query = rotate(query, places if rows is None else pool_rows(places, spans, rows), attention.relation)
        key = rotate(key, places, attention.relation)
    if attention.kv_heads is not None:
        key, value = (x.repeat_interleave(attention.heads // attention.kv_heads, dim=1) for x in (key, value))
    outputs = []
    query_start = key_start = 0
    for length, run in groupby(spans.lengths):
        count = sum(1 for _ in run)
        queries = length if rows is None else 1
        query_end, key_end = query_start + count * queries, key_start + count * length
        q = query[query_start:query_end].unflatten(0, (count, queries)).transpose(1, 2)  # [count, heads, queries, dim]
        k = key[key_start:key_end].unflatten(0, (count, length)).transpose(1, 2)
        v = value[key_start:key_end].unflatten(0, (count, length)).transpose(1, 2)
        first = length - 1 if rows == "last" else 0
        seen = visible_attention(q, k, v, first, attention, dropout, relative)
        outputs.append(seen.transpose(1, 2).flatten(0, 1))
        query_start, key_start = query_end, key_end
    return torch.cat(outputs)


def visible_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    first: int,
    attention: Attention,
    dropout: float,
    relative: RelativeTables | None,
) -> torch.Tensor:
    """Attention of sequences of one length, each query over the keys that it sees.

    Args:
        query: `[sequences, heads, queries, head_dim]`, of neighbouring tokens.
        key: `[sequences, heads, keys, head_dim]`.
        value: `[sequences, heads, keys, head_dim]`.
        first: Position of the first query's token.
        attention: Which attention.
        dropout: Probability of dropping an attention weight.
        relative: The tables of a relation by distance, or None.

    Returns:
        `[sequences, heads, queries, head_dim]`.
    """
    scale = 1.0 / math.sqrt(query.shape[-1] * score_terms(attention))
    if relative is None and attention.window is None and not attention.causal:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
    length = key.shape[2]
    reach = length if attention.window is None else attention.window
    outputs = []
    for part in query.split(QUERIES_AT_A_TIME, dim=2):
        last = first + part.shape[2] - 1
        begin, end = max(0, first - reach), min(length, (last if attention.causal else last + reach) + 1)
        distance = torch.arange(begin, end, device=query.device) - torch.arange(
            first, last + 1, device=query.device
        ).unsqueeze(1)  # [queries, keys]
        sees = (distance >= -reach) & (distance <= (0 if attention.causal else reach))
        k, v = key[:, :, begin:end], value[:, :, begin:end]
        mask = sees
        if relative is not None:
            added = relative_scores(part, k, table_rows(attention, distance), relative, scale)
            mask = added.masked_fill(~sees, -math.inf)
        outputs.append(F.scaled_dot_product_attention(part, k, v, attn_mask=mask, dropout_p=dropout, scale=scale))
        first = last + 1
    return torch.cat(outputs, dim=2)


def table_rows(attention: Attention, distance: torch.Tensor) -> torch.Tensor:
    """The rows of a relation's table for distances from queries on to keys, int64 in their shape."""
    assert isinstance(attention.relation, RelativeBias | DisentangledAttention)
    rows = torch.tensor(attention.relation.rows, device=distance.device)
    most = len(rows) // 2
    return rows[distance.clamp(-most, most) + most]


def relative_scores(
    query: torch.Tensor, key: torch.Tensor, rows: torch.Tensor, relative: RelativeTables, scale: float
) -> torch.Tensor:
    """What a relation by distance adds to the scores.

    Args:
        query: `[sequences, heads, queries, head_dim]`.
        key: `[sequences, heads, keys, head_dim]`.
        rows: The table's rows, `[queries, keys]`.
        relative: The tables.
        scale: Factor of products of queries and keys.

    Returns:
        `[sequences or 1, heads, queries, keys]`.
    """
    if isinstance(relative, BiasTable):
        return relative.bias.to(query.dtype)[rows].permute(2, 0, 1).unsqueeze(0)
    added = torch.zeros((), dtype=query.dtype, device=query.device)
    shape = (*query.shape[:3], key.shape[2])
    if relative.keys is not None:
        met = query @ relative.keys.permute(1, 2, 0)  # [sequences, heads, queries, 2 * span]
        added = added + met.gather(-1, rows.expand(shape))
    if relative.queries is not None:
        met = relative.queries.transpose(0, 1) @ key.transpose(2, 3)  # [sequences, heads, 2 * span, keys]
        added = added + met.gather(2, rows.expand(shape))
    return added * scale


def positions(spans: Spans) -> torch.Tensor:
    """Each token's place in its sequence, from 0 on, int64 `[total_tokens]`."""
    total = sum(spans.lengths)
    starts = spans.cu_seqlens[:-1].long()
    lengths = spans.cu_seqlens.diff()
    places = torch.arange(total, device=starts.device)
    return places - torch.repeat_interleave(starts, lengths, output_size=total)


def rotate(x: torch.Tensor, places: torch.Tensor, rotary: RotaryEmbedding) -> torch.Tensor:
    """Rotates heads by their tokens' places, in float32 at least (https://arxiv.org/abs/2104.09864, equation 34).

    Args:
        x: `[rows, heads, head_dim]`.
        places: `[rows]`.
        rotary: By which angles.

    Returns:
        `[rows, heads, head_dim]` in the dtype of x.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    cosine, sine = (table.unsqueeze(1) for table in rotation(places, rotary, dtype))  # [rows, 1, pairs]
    half = len(rotary.frequencies)
    first, second, rest = x.to(dtype).split([half, half, x.shape[-1] - 2 * half], dim=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine, rest)
    return torch.cat(turned, dim=-1).to(x.dtype)


def rotation(places: torch.Tensor, rotary: RotaryEmbedding, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of places' angles, which themselves are in float32 always; both `[rows, pairs]`."""
    frequencies = torch.tensor(rotary.frequencies, dtype=torch.float32, device=places.device)
    angles = torch.outer(places.float(), frequencies).to(dtype)
    return angles.cos() * rotary.scale, angles.sin() * rotary.scale


def pool_rows(x: torch.Tensor, spans: Spans, pooling: Pooling) -> torch.Tensor:
    """The first or last row of each sequence."""
    return x[spans.cu_seqlens[:-1] if pooling == "first" else spans.cu_seqlens[1:] - 1]


def pool(x: torch.Tensor, spans: Spans, pooling: Pooling) -> torch.Tensor:
    """See `Ops`."""
    if pooling == "mean":
        return torch.stack([rows.mean(0) for rows in x.split(spans.lengths)])
    return pool_rows(x, spans, pooling)


def dropout(x: torch.Tensor, probability: float) -> torch.Tensor:
    """See `Ops`."""
    return F.dropout(x, probability)


def zero_gradients(parameters: Iterable[torch.nn.Parameter], *, for_good: bool) -> None:
    """See `Ops`."""
    for parameter in parameters:
        parameter.grad = None
