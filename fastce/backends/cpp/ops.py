"""The ops of training on C++ kernels, forward and backward: `fastce.backends.ops.Ops`. Matrix products are torch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from fastce import _core
from fastce.backends.cpp.functions import (
    NO_DROPOUT,
    ActivateFunction,
    AttentionFunction,
    Dropout,
    EmbeddingFunction,
    NormFunction,
    array,
    draw,
    zero_gradients,
)
from fastce.backends.ops import BiasTable, RelativeTables
from fastce.backends.reference import ops as reference
from fastce.backends.reference.ops import dropout, linear, pool
from fastce.backends.weights import Linear, NormWeights, products
from fastce.packing import Spans
from fastce.spec import Activation, Attention, DisentangledAttention, Pooling, RelativeBias, RotaryEmbedding
from fastce.steps import Keep, kv_heads, score_terms

__all__ = [
    "activated",
    "add_norm",
    "attention",
    "dropout",
    "embed",
    "gated",
    "linear",
    "normalize",
    "pool",
    "zero_gradients",
]


def bias_of(linear: Linear) -> torch.Tensor | None:
    """A linear layer's bias."""
    return None if linear.bias is None else linear.bias.tensor


def activated(x: torch.Tensor, linear: Linear, activation: Activation) -> torch.Tensor:
    """See `Ops`."""
    output: torch.Tensor = ActivateFunction.apply(activation, linear.product(x), bias_of(linear), None, None)
    return output


def gated(x: torch.Tensor, gate: Linear, up: Linear, activation: Activation) -> torch.Tensor:
    """See `Ops`."""
    gate_x, up_x = products(x, (gate, up), biases=False)
    output: torch.Tensor = ActivateFunction.apply(activation, gate_x, bias_of(gate), up_x, bias_of(up))
    return output


def add_norm(
    x: torch.Tensor,
    linear: Linear,
    stream: torch.Tensor,
    norm: NormWeights | None,
    keep: Keep,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `Ops`."""
    if norm is None:
        return reference.add_norm(x, linear, stream, norm, keep, dropout)
    product, bias = linear.product(x), bias_of(linear)
    weights = norm.weight, norm.bias, norm.norm
    result = NormFunction.apply(product, bias, stream, *weights, draw(dropout), NO_DROPOUT, keep == "sum")
    return result if keep == "sum" else (result, result)


def normalize(x: torch.Tensor, norm: NormWeights, dropout: float = 0.0) -> torch.Tensor:
    """See `Ops`; drops out what is returned."""
    rows = x.float().reshape(-1, x.shape[-1])
    weights = norm.weight, norm.bias, norm.norm
    output: torch.Tensor = NormFunction.apply(None, None, rows, *weights, NO_DROPOUT, draw(dropout), False)
    return output.view(x.shape).to(x.dtype)


def embed(
    tables: Sequence[tuple[torch.Tensor, torch.Tensor]], norm: NormWeights | None, dropout: float
) -> torch.Tensor:
    """See `Ops`."""
    summed: torch.Tensor = EmbeddingFunction.apply([ids.numpy() for ids, _ in tables], *(table for _, table in tables))
    return reference.dropout(summed, dropout) if norm is None else normalize(summed, norm, dropout)


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
    """See `Ops`."""
    described = varlen_attention(spans, attention, rows, draw(dropout))
    tables = tables_by_distance(attention, relative, spans.longest)
    output: torch.Tensor = AttentionFunction.apply(
        described, attention.heads, query.flatten(1), key.flatten(1), value.flatten(1), *tables
    )
    return output.view(query.shape)


def tables_by_distance(
    attention: Attention, relative: RelativeTables | None, longest: int
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """What scores get by distance, in float32, with a row for each one that there is: bias, keys and queries."""
    if relative is None:
        return None, None, None
    assert isinstance(attention.relation, RelativeBias | DisentangledAttention)
    most = len(attention.relation.rows) // 2
    reach = min(most, longest - 1)
    rows = torch.tensor(attention.relation.rows[most - reach : most + reach + 1])
    if isinstance(relative, BiasTable):
        return relative.bias.float()[rows], None, None
    keys, queries = (None if table is None else table.float()[rows].flatten(1) for table in relative)
    return None, keys, queries


def varlen_attention(
    spans: Spans, attention: Attention, rows: Pooling | None, dropout: Dropout
) -> _core.VarlenAttention:
    """An attention over a batch in the words of the kernels."""
    relation = attention.relation
    rotation = None
    if isinstance(relation, RotaryEmbedding):
        rotation = rotation_tables(relation, 1 << (spans.longest - 1).bit_length())
    cu_keys = spans.cu_seqlens.numpy()
    return _core.VarlenAttention(
        heads=attention.heads,
        kv_heads=kv_heads(attention),
        dim=attention.head_dim,
        cu_queries=cu_keys if rows is None else np.arange(len(cu_keys), dtype=np.int32),
        cu_keys=cu_keys,
        queries_are_last=rows == "last",
        before=attention.window,
        after=0 if attention.causal else attention.window,
        rotation=rotation,
        scale=1.0 / math.sqrt(attention.head_dim * score_terms(attention)),
        dropout=dropout,
    )


@lru_cache(maxsize=8)
def rotation_tables(rotary: RotaryEmbedding, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the angles at each position, both `[positions, pairs]`."""
    cosine, sine = reference.rotation(torch.arange(positions), rotary, torch.float32)
    return array(cosine), array(sine)
