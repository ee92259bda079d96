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
from fastce.backends.ops import BiasTable, PositionTables, RelativeTables
from fastce.backends.reference import ops as reference
from fastce.packing import Spans
from fastce.spec import Attention, DisentangledAttention, Pooling, RelativeBias, RotaryEmbedding
from fastce.steps import score_terms

BUCKETS = (1, *(2,) * 20, *(3,) * 9, *range(4, 9), *(9,) * 9, *(10,) * 20, 11)
BIAS = RelativeBias(12, BUCKETS)


def disentangled(**terms: bool) -> DisentangledAttention:
    """DeBERTa's attention, up to a distance of 32."""
    return replace(DisentangledAttention(6, BUCKETS, True, True, True, None), **terms)


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
    "bias": replace(PLAIN, relation=BIAS),
    "bias, causal window": replace(PLAIN, heads=4, kv_heads=2, relation=BIAS, window=60, causal=True),
    "disentangled": replace(PLAIN, relation=disentangled()),
    "disentangled, wide": replace(PLAIN, heads=1, head_dim=64, relation=disentangled(position_to_content=False)),
    "disentangled, causal window": replace(
        PLAIN, relation=disentangled(content_to_position=False), window=60, causal=True
    ),
    "everything": replace(PLAIN, heads=4, kv_heads=2, relation=rotary(10), window=33, causal=True),
}
RAGGED = [1, 2, 4, 5, 6, 49, 200]
"""One, two, a window of 5 less one, itself and one more, a chunk of queries and one more, several chunks."""


def random_tables(attention: Attention) -> list[torch.Tensor]:
    """What the relation needs."""
    relation, shape = attention.relation, (12, attention.heads, attention.head_dim)
    if isinstance(relation, RelativeBias):
        return [torch.randn(12, attention.heads)]
    return [torch.randn(shape) for _ in range(score_terms(attention) - 1)]


def relative_tables(attention: Attention, tables: tuple[torch.Tensor, ...]) -> RelativeTables | None:
    """The same as ops take them."""
    relation, left = attention.relation, list(tables)
    if isinstance(relation, RelativeBias):
        return BiasTable(left.pop())
    if not isinstance(relation, DisentangledAttention):
        return None
    keys = left.pop(0) if relation.content_to_position else None
    return PositionTables(keys, left.pop(0) if relation.position_to_content else None)


def check_attention(
    isa: str, lengths: list[int], attention: Attention, rows: Pooling | None, probability: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(sum(lengths) + attention.head_dim)
    spans = Spans.of(lengths)
    heads, kv_heads = attention.heads, attention.kv_heads or attention.heads
    query_lengths = lengths if rows is None else [1] * len(lengths)
    counts = (sum(query_lengths), heads), (sum(lengths), kv_heads), (sum(lengths), kv_heads)
    inputs = [leaf(torch.randn(*count, attention.head_dim), dtype) for count in counts]
    inputs += [leaf(table, dtype) for table in random_tables(attention)]
    dropout = (SEEDS[1] if probability else 0, probability)
    factors = mask(isa, dropout, sum(query_lengths) * heads, max(lengths)).unflatten(0, (-1, heads))

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *tables: torch.Tensor) -> torch.Tensor:
        described = ops.varlen_attention(spans, attention, rows, dropout)
        by_distance = ops.tables_by_distance(attention, relative_tables(attention, tables), max(lengths))
        flat = (x.flatten(1) for x in (query, key, value))
        return functions.AttentionFunction.apply(described, heads, *flat, *by_distance).view(query.shape)

    def expected(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *tables: torch.Tensor) -> torch.Tensor:
        relative = relative_tables(attention, tables)
        if probability == 0.0:
            return reference.attention(query, key, value, spans, attention, rows, 0.0, relative)
        places = reference.positions(spans)
        query_places = places if rows is None else reference.pool_rows(places, spans, rows)
        if isinstance(attention.relation, RotaryEmbedding):
            query = reference.rotate(query, query_places, attention.relation)
            key = reference.rotate(key, places, attention.relation)
        key, value = (x.repeat_interleave(heads // kv_heads, 1) for x in (key, value))
        parts = [x.split(query_lengths) for x in (query, query_places, factors)]
        outputs = []
        for q, i, kept, k, v in zip(*parts, key.split(lengths), value.split(lengths), strict=True):
            distance = torch.arange(len(k)) - i[:, None, None]  # [queries, 1, keys]
            window = len(k) if attention.window is None else attention.window
            hidden = (distance.abs() > window) | (attention.causal & (distance > 0))
            scale = (attention.head_dim * score_terms(attention)) ** -0.5
            scores = torch.einsum("ihd,jhd->ihj", q, k) * scale
            if relative is not None:
                sides = (x.transpose(0, 1).unsqueeze(0) for x in (q, k))
                table_rows = reference.table_rows(attention, distance[:, 0])
                scores = scores + reference.relative_scores(*sides, table_rows, relative, scale)[0].transpose(0, 1)
            weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            outputs.append(torch.einsum("ihj,jhd->ihd", weights * kept[..., : len(k)], v))
        return torch.cat(outputs)

    size = float((inputs[0].norm(dim=-1).max() * inputs[1].norm(dim=-1).max()).detach()) / attention.head_dim**0.5
    amplification = 1 + size * score_terms(attention) * getattr(attention.relation, "scale", 1.0) ** 2
    check(run, expected, inputs, max(lengths) * (heads // kv_heads) + attention.head_dim, amplification)


@every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("probability", [0.0, 0.4])
@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        *((kind, None) for kind in ATTENTIONS),
        *product(("plain", "causal window", "everything", "bias", "disentangled"), ("first", "last")),
    ],
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
        functions.AttentionFunction.apply(described, 3, query, key, query, None, None, None)
    with pytest.raises(ValueError, match=r"relative_keys: expected the shape \(9, 60\), got \(9, 59\)"):
        functions.AttentionFunction.apply(described, 3, query, query, query, None, torch.randn(9, 59), None)
    with pytest.raises(ValueError, match="tables: expected a row for each distance from -reach to reach"):
        functions.AttentionFunction.apply(described, 3, query, query, query, torch.randn(8, 3), None, None)
    with pytest.raises(ValueError, match="heads: 3 is no multiple of 2"):
        ops.varlen_attention(spans, replace(PLAIN, kv_heads=2), None, functions.NO_DROPOUT)
    with pytest.raises(ValueError, match="cu_queries: 0 queries of 0 keys"):
        ops.varlen_attention(Spans.of([3, 0]), PLAIN, None, functions.NO_DROPOUT)
    wrong = replace(PLAIN, head_dim=19, relation=rotary(10))
    with pytest.raises(ValueError, match=r"rotation: \(2, 10\) is not for heads of 19 at 2 positions"):
        ops.varlen_attention(Spans.of([2]), wrong, None, functions.NO_DROPOUT)
