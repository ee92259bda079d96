"""The ops on Triton kernels, forward and backward: `fastce.backends.ops.Ops`. Matrix products are torch's."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastce.backends.ops import RelativeTables
from fastce.backends.reference import ops as reference
from fastce.backends.reference.ops import linear, pool_rows, zero_gradients
from fastce.backends.triton import activation as activation_kernels
from fastce.backends.triton import add_norm as add_norm_kernels
from fastce.backends.triton import dropout as dropout_kernels
from fastce.backends.triton import embed as embed_kernels
from fastce.backends.triton.add_norm import add_norm_8bit, normalize
from fastce.backends.triton.attention import attend
from fastce.backends.triton.dropout import draw, dropout
from fastce.backends.triton.linear_8bit import Linear8Bit
from fastce.backends.triton.pool import mean_rows
from fastce.backends.triton.relative import NO_DISTANCES, by_distance
from fastce.backends.triton.rotary import rotate
from fastce.backends.triton.sequences import Rows
from fastce.backends.weights import Linear, NormWeights, products
from fastce.packing import Spans
from fastce.spec import Activation, Attention, Pooling, RotaryEmbedding
from fastce.steps import Keep

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


def embed(
    tables: Sequence[tuple[torch.Tensor, torch.Tensor]], norm: NormWeights | None, dropout: float
) -> torch.Tensor:
    """See `Ops`."""
    if norm is None:
        summed = reference.embedding_sum(tables)
        return dropout_kernels.dropout(summed, dropout) if dropout > 0.0 else summed
    return embed_kernels.embed(tables, norm, draw(dropout))


def activated(x: torch.Tensor, linear: Linear, activation: Activation) -> torch.Tensor:
    """See `Ops`."""
    if isinstance(linear, Linear8Bit):
        return linear.activated(x, activation)
    return activation_kernels.activate_biased(activation, linear.product(x), bias_of(linear))


def gated(x: torch.Tensor, gate: Linear, up: Linear, activation: Activation) -> torch.Tensor:
    """See `Ops`."""
    gate_x, up_x = products(x, (gate, up), biases=False)
    return activation_kernels.activate_biased(activation, gate_x, bias_of(gate), up_x, bias_of(up))


def add_norm(
    x: torch.Tensor,
    linear: Linear,
    stream: torch.Tensor,
    norm: NormWeights | None,
    keep: Keep,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `Ops`. The stream keeps its dtype, what the next sublayer reads is in that of the product."""
    if norm is None:
        return reference.add_norm(x, linear, stream, norm, keep, dropout)
    if isinstance(linear, Linear8Bit):
        product, dtype = linear.product(x), linear.weight.whole.dtype
        return add_norm_8bit(product, bias_of(linear), stream, norm, dtype, keep_sum=keep == "sum")
    return add_norm_kernels.add_norm(
        linear.product(x), bias_of(linear), stream, norm, draw(dropout), keep_sum=keep == "sum"
    )


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
    assert rows != "mean"
    chosen: Rows = "all" if rows is None else rows
    if isinstance(attention.relation, RotaryEmbedding):
        query = rotate(query, spans, attention.relation, chosen)
        key = rotate(key, spans, attention.relation, "all")
    distances = NO_DISTANCES if relative is None else by_distance(query, key, attention, relative, spans.longest)
    return attend(query, key, value, spans, attention, chosen, draw(dropout), distances)


def pool(x: torch.Tensor, spans: Spans, pooling: Pooling) -> torch.Tensor:
    """See `Ops`. Means are in float32."""
    return mean_rows(x, spans) if pooling == "mean" else pool_rows(x, spans, pooling)


def bias_of(linear: Linear) -> torch.Tensor | None:
    """A linear layer's bias."""
    return None if linear.bias is None else linear.bias.tensor
