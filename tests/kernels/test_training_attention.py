"""Attention of training and its gradients against the reference op in float64, at every ISA level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from isa import every_level
from training_check import DTYPES, SEEDS, check, leaf, mask, rotary

from fastce.backends.cpp import functions, ops
from fastce.backends.reference import ops as reference
from fastce.packing import Spans
from fastce.spec import Attention, Pooling

PLAIN = Attention(heads=3, head_dim=20)
ATTENTIONS = {
    "plain": PLAIN,
    "wide": Attention(heads=1, head_dim=64),
    "rotary": replace(PLAIN, relation=rotary(10)),
    "partly rotary": replace(PLAIN, head_dim=26, relation=rotary(5, scale=1.2)),
    "window": replace(PLAIN, window=5),
    "wide window": replace(PLAIN, head_dim=40, window=60),
    "causal": replace(PLAIN, causal=True),
    "causal window": replace(PLAIN, window=7, causal=True),
    "grouped": replace(PLAIN, heads=6, kv_heads=2),
    "everything": replace(PLAIN, heads=4, kv_heads=2, relation=rotary(10), window=33, causal=True),
}
RAGGED = [1, 2, 4, 5, 6, 49, 200]
"""One, two, a window of 5 less one, itself and one more, a chunk of queries and one more, several chunks."""


def check_attention(
    isa: str, lengths: list[int], attention: Attention, rows: Pooling | None, probability: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(sum(lengths) + attention.head_dim)
    spans = Spans.of(lengths)
    heads, kv_heads = attention.heads, attention.kv_heads or attention.heads
    query_lengths = lengths if rows is None else [1] * len(lengths)
    counts = (sum(query_lengths), heads), (sum(lengths), kv_heads), (sum(lengths), kv_heads)
    inputs = [leaf(torch.randn(*count, attention.head_dim), dtype) for count in counts]
    dropout = (SEEDS[1] if probability else 0, probability)
    factors = mask(isa, dropout, sum(query_lengths) * heads, max(lengths)).unflatten(0, (-1, heads))

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        described = ops.varlen_attention(spans, attention, rows, dropout)
        flat = functions.AttentionFunction.apply(described, heads, *(x.flatten(1) for x in (query, key, value)))
        return flat.view(query.shape)

    def expected(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if probability == 0.0:
            return reference.attention(query, key, value, spans, attention, rows, 0.0, None)
        places = reference.positions(spans)
        query_places = places if rows is None else reference.pool_rows(places, spans, rows)
        if attention.relation is not None:
            query = reference.rotate(query, query_places, attention.relation)
            key = reference.rotate(key, places, attention.relation)
        key, value = (x.repeat_interleave(heads // kv_heads, 1) for x in (key, value))
        parts = [x.split(query_lengths) for x in (query, query_places, factors)]
        outputs = []
        for q, i, kept, k, v in zip(*parts, key.split(lengths), value.split(lengths), strict=True):
            distance = torch.arange(len(k)) - i[:, None, None]  # [queries, 1, keys]
            window = len(k) if attention.window is None else attention.window
            hidden = (distance.abs() > window) | (attention.causal & (distance > 0))
            scores = torch.einsum("ihd,jhd->ihj", q, k) / attention.head_dim**0.5
            weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            outputs.append(torch.einsum("ihj,jhd->ihd", weights * kept[..., : len(k)], v))
        return torch.cat(outputs)

    size = float((inputs[0].norm(dim=-1).max() * inputs[1].norm(dim=-1).max()).detach()) / attention.head_dim**0.5
    amplification = 1 + size * getattr(attention.relation, "scale", 1.0) ** 2
    check(run, expected, inputs, max(lengths) * (heads // kv_heads) + attention.head_dim, amplification)


@every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("probability", [0.0, 0.4])
@pytest.mark.parametrize(
    ("kind", "rows"),
    [*((kind, None) for kind in ATTENTIONS), *product(("plain", "causal window", "everything"), ("first", "last"))],
)
def test_attention(
    at_level: Callable[[str], None],
    isa: str,
    kind: str,
    rows: Pooling | None,
    probability: float,
    dtype: torch.dtype,
) -> None:
    at_level(isa)
    check_attention(isa, RAGGED, ATTENTIONS[kind], rows, probability, dtype)


@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=5),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 70),
    st.none() | st.integers(0, 130),
    st.booleans(),
    st.sampled_from([None, "first", "last"]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_attention_of_any_shape(
    lengths: list[int],
    kv_heads: int,
    group: int,
    dim: int,
    window: int | None,
    causal: bool,
    rows: Pooling | None,
) -> None:
    relation = rotary(dim // 2) if dim > 1 else None
    attention = Attention(
        heads=kv_heads * group, head_dim=dim, kv_heads=kv_heads, relation=relation, window=window, causal=causal
    )
    check_attention("", lengths, attention, rows, 0.2, torch.float32)


@every_level
def test_a_window_skips_what_lies_far_outside(at_level: Callable[[str], None], isa: str) -> None:
    """Products with what nobody near sees are never made: not a number there would be seen."""
    at_level(isa)
    torch.manual_seed(0)
    attention, spans = replace(PLAIN, window=5), Spans.of([400])
    query, key, value = (torch.randn(400, 3, 20) for _ in range(3))
    key[0] = value[0] = float("nan")
    inputs = [leaf(x) for x in (query, key, value)]
    output = ops.attention(*inputs, spans, attention, None, 0.0, None)
    output[200:].sum().backward()
    assert output[:6].isnan().all()
    assert output[100:].isfinite().all()
    assert all(x.grad is not None and x.grad[100:].isfinite().all() for x in inputs)


def test_attention_refuses_what_does_not_fit() -> None:
    spans = Spans.of([3, 2])
    query, key = torch.randn(5, 60), torch.randn(4, 60)
    described = ops.varlen_attention(spans, PLAIN, None, functions.NO_DROPOUT)
    with pytest.raises(ValueError, match=r"key: expected the shape \(5, 60\), got \(4, 60\)"):
        functions.AttentionFunction.apply(described, 3, query, key, query)
    with pytest.raises(ValueError, match="heads: 3 is no multiple of 2"):
        ops.varlen_attention(spans, replace(PLAIN, kv_heads=2), None, functions.NO_DROPOUT)
    with pytest.raises(ValueError, match="cu_queries: 0 queries of 0 keys"):
        ops.varlen_attention(Spans.of([3, 0]), PLAIN, None, functions.NO_DROPOUT)
    wrong = replace(PLAIN, head_dim=19, relation=rotary(10))
    with pytest.raises(ValueError, match=r"rotation: \(2, 10\) is not for heads of 19 at 2 positions"):
        ops.varlen_attention(Spans.of([2]), wrong, None, functions.NO_DROPOUT)
