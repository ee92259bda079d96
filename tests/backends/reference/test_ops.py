"""The reference ops against their formulas, written out in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from fastce.backends.reference import ops
from fastce.backends.weights import Linear, NormWeights, plain_linear, products
from fastce.checkpoints.network import Stored
from fastce.packing import Spans
from fastce.spec import Attention, LayerNorm, Pooling, RMSNorm, RotaryEmbedding

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
DOUBLE = 1e-12
"""Everything here is float64 with sums of at most some hundred terms of order one: 2^-53 times a thousand."""

PLAIN = Attention(2, 6)
ROTARY = RotaryEmbedding((1.0, 0.1), scale=1.25)
"""Of heads of 6: the last two elements stay."""


def sees(attention: Attention, query: int, key: int) -> bool:
    near = attention.window is None or abs(query - key) <= attention.window
    return near and (not attention.causal or key <= query)


def rotated(x: torch.Tensor, place: int) -> torch.Tensor:
    """One head's row: pairs of elements 0, 2 and 1, 3 turn."""
    result = x.clone()
    for number, frequency in enumerate(ROTARY.frequencies):
        angle = float(torch.tensor(float(place)) * torch.tensor(frequency))
        cosine, sine = math.cos(angle) * ROTARY.scale, math.sin(angle) * ROTARY.scale
        result[number] = x[number] * cosine - x[number + 2] * sine
        result[number + 2] = x[number + 2] * cosine + x[number] * sine
    return result


def attention_by_hand(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, first: int, attention: Attention
) -> torch.Tensor:
    """One head of one sequence: [queries, dim], [keys, dim], [keys, dim], the first query at a place."""
    outputs = []
    for number, row in enumerate(query, start=first):
        seen = [place for place in range(len(key)) if sees(attention, number, place)]
        keys = torch.stack([rotated(key[place], place) if attention.relation else key[place] for place in seen])
        row = rotated(row, number) if attention.relation else row
        scores = keys @ row / math.sqrt(len(row))
        weights = scores.exp() / scores.exp().sum()
        outputs.append(weights @ value[seen])
    return torch.stack(outputs)


@settings(deadline=None, max_examples=60)
@given(
    lengths=LENGTHS,
    kv_heads=st.sampled_from([None, 1, 2]),
    relation=st.sampled_from([None, ROTARY]),
    window=st.sampled_from([None, 0, 2]),
    causal=st.booleans(),
    rows=st.sampled_from([None, "first", "last"]),
)
def test_attention(
    lengths: list[int],
    kv_heads: int | None,
    relation: RotaryEmbedding | None,
    window: int | None,
    causal: bool,
    rows: Pooling | None,
) -> None:
    attention = Attention(2, 6, kv_heads, relation=relation, window=window, causal=causal)
    queries = [1] * len(lengths) if rows else lengths
    shared = kv_heads or 2
    query = torch.randn(sum(queries), 2, 6, dtype=torch.float64)
    key, value = torch.randn(2, sum(lengths), shared, 6, dtype=torch.float64)
    actual = ops.attention(query, key, value, Spans.of(lengths), attention, rows, 0.0, None)
    parts = zip(query.split(queries), key.split(lengths), value.split(lengths), strict=True)
    expected = torch.cat(
        [
            torch.stack(
                [
                    attention_by_hand(
                        q[:, head],
                        k[:, head * shared // 2],
                        v[:, head * shared // 2],
                        len(k) - 1 if rows == "last" else 0,
                        attention,
                    )
                    for head in range(2)
                ],
                dim=1,
            )
            for q, k, v in parts
        ]
    )
    assert actual.shape == query.shape
    assert (actual - expected).abs().max() < DOUBLE


def test_queries_of_long_sequences_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, spans = Attention(1, 4, window=3), Spans.of([40, 7])
    query, key, value = torch.randn(3, 47, 1, 4, dtype=torch.float64)
    whole = ops.attention(query, key, value, spans, attention, None, 0.0, None)
    monkeypatch.setattr(ops, "QUERIES_AT_A_TIME", 6)
    parts = ops.attention(query, key, value, spans, attention, None, 0.0, None)
    assert (parts - whole).abs().max() < DOUBLE


def test_attention_dropout_keeps_the_mean() -> None:
    ones = torch.ones(4000, 1, 1)
    dropped = ops.attention(ones, ones, ones, Spans.of([20] * 200), Attention(1, 1), None, 0.5, None)
    assert dropped.std() > 0.01
    assert abs(dropped.mean() - 1) < 0.05


def test_norms() -> None:
    x, weight, bias = torch.randn(7, 60, dtype=torch.float64), *torch.randn(2, 60, dtype=torch.float64)
    variance = ((x - x.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True)
    centered = (x - x.mean(1, keepdim=True)) / (variance + 1e-5).sqrt() * weight
    squares = (x**2).mean(1, keepdim=True)
    cases: list[tuple[NormWeights, torch.Tensor]] = [
        (NormWeights(LayerNorm(1e-5), weight, bias), centered + bias),
        (NormWeights(LayerNorm(1e-5, bias=False), weight, None), centered),
        (NormWeights(RMSNorm(1e-5), weight, None), x / (squares + 1e-5).sqrt() * weight),
    ]
    for norm, expected in cases:
        assert (ops.normalize(x, norm) - expected).abs().max() < DOUBLE


def test_the_end_of_a_sublayer() -> None:
    x, stream = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    linear = plain_linear(torch.randn(6, 8, dtype=torch.float64), torch.randn(6, dtype=torch.float64))
    norm = NormWeights(RMSNorm(1e-5), torch.randn(6, dtype=torch.float64), None)
    total = linear(x) + stream
    kept, read = ops.add_norm(x, linear, stream, norm, "sum", 0.0)
    assert torch.equal(kept, total)
    assert torch.equal(read, ops.normalize(total, norm))
    kept, read = ops.add_norm(x, linear, stream, norm, "normed", 0.0)
    assert kept is read
    assert torch.equal(read, ops.normalize(total, norm))
    kept, read = ops.add_norm(x, linear, stream, None, "sum", 0.0)
    assert kept is read
    assert torch.equal(kept, total)


def test_a_sum_is_in_the_dtype_of_the_stream() -> None:
    linear = plain_linear(torch.randn(6, 8).bfloat16())
    norm = NormWeights(LayerNorm(1e-5), torch.ones(6), torch.zeros(6))
    kept, read = ops.add_norm(torch.randn(3, 8), linear, torch.randn(3, 6), norm, "sum", 0.0)
    assert kept.dtype == read.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("gelu_tanh", lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("relu", lambda x: max(x, 0.0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("tanh", math.tanh),
    ],
)
def test_activations(name: Any, formula: Any) -> None:
    x = torch.linspace(-9, 9, 721, dtype=torch.float64).unsqueeze(1)
    expected = torch.tensor([[formula(value)] for value in x.flatten().tolist()], dtype=torch.float64)
    one, two = (plain_linear(torch.full((1, 1), factor, dtype=torch.float64)) for factor in (1.0, 2.0))
    assert (ops.activated(x, one, name) - expected).abs().max() < DOUBLE
    assert (ops.gated(x, one, two, name) - expected * 2 * x).abs().max() < 9 * DOUBLE


def test_linear_computes_in_the_dtype_of_the_weight() -> None:
    x, weight, bias = torch.randn(5, 8), torch.randn(3, 8), torch.randn(3)
    exact = x.double() @ weight.double().T + bias.double()
    assert (ops.linear(x, plain_linear(weight.double(), bias.double())) - exact).abs().max() < DOUBLE
    assert ops.linear(x, plain_linear(weight.bfloat16(), bias.bfloat16())).dtype == torch.bfloat16


def test_stacked_rows_are_one_product_with_the_results_of_several() -> None:
    x, whole, bias = torch.randn(5, 8), torch.randn(10, 8, requires_grad=True), torch.randn(10, requires_grad=True)
    rows = (slice(0, 4), slice(4, 6), slice(6, 10))
    parts = [Linear(Stored(whole, part), Stored(bias, part)) for part in rows]
    found = products(x, parts)
    assert all(part._base is found[0]._base for part in found), "views of one product"
    for part, result in zip(parts, found, strict=True):
        assert torch.allclose(result, part(x), atol=1e-6)
    some = products(x, parts[1:])
    assert torch.allclose(some[1], found[2], atol=1e-6)
    sum(result.square().sum() for result in found).backward()  # type: ignore[union-attr]
    expected = 2 * (x @ whole.detach().T + bias.detach())
    assert torch.allclose(whole.grad, expected.T @ x, rtol=1e-4, atol=1e-4)
    other = Linear(Stored(torch.randn(3, 8)), None)
    assert [result.shape[1] for result in products(x, [parts[0], other])] == [4, 3]


def test_embeddings() -> None:
    words, positions = torch.randn(10, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    ids, places = torch.tensor([3, 9, 0], dtype=torch.int32), torch.tensor([0, 5, 1], dtype=torch.int32)
    expected = words[[3, 9, 0]] + positions[[0, 5, 1]]
    assert torch.equal(ops.embed([(ids, words), (places, positions)], None, 0.0), expected)
    norm = NormWeights(RMSNorm(1e-5), torch.randn(4, dtype=torch.float64), None)
    normed = ops.embed([(ids, words), (places, positions)], norm, 0.0)
    assert torch.equal(normed, ops.normalize(expected, norm))


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_pooling(pooling: Pooling) -> None:
    x, lengths = torch.randn(10, 3, dtype=torch.float64), [4, 1, 5]
    rows = {"first": lambda part: part[0], "last": lambda part: part[-1], "mean": lambda part: part.sum(0) / len(part)}
    expected = torch.stack([rows[pooling](part) for part in x.split(lengths)])
    assert (ops.pool(x, Spans.of(lengths), pooling) - expected).abs().max() < DOUBLE


def test_gradients() -> None:
    """Every op is differentiable with respect to every float that it takes."""

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    spans = Spans.of([3, 1, 2, 2])
    for attention in (PLAIN, Attention(2, 6, window=1, relation=ROTARY), Attention(2, 6, causal=True)):
        assert gradcheck(
            lambda q, k, v, a=attention: ops.attention(q, k, v, spans, a, None, 0.0, None),
            [leaf(8, 2, 6) for _ in range(3)],
        )
    for kind, keep in ((LayerNorm(1e-5), "sum"), (LayerNorm(1e-5), "normed"), (RMSNorm(1e-5), "sum")):
        assert gradcheck(
            lambda x, m, s, w, b, kind=kind, keep=keep: ops.add_norm(
                x, plain_linear(m), s, NormWeights(kind, w, b if isinstance(kind, LayerNorm) else None), keep, 0.0
            ),
            (leaf(3, 4), leaf(5, 4), leaf(3, 5), leaf(5), leaf(5)),
        )
    assert gradcheck(lambda x, w, b: ops.linear(x, plain_linear(w, b)), (leaf(3, 5), leaf(2, 5), leaf(2)))
    assert gradcheck(
        lambda x, g, u: ops.gated(x, plain_linear(g), plain_linear(u), "gelu"), (leaf(3, 5), leaf(4, 5), leaf(4, 5))
    )
    assert gradcheck(lambda x: ops.pool(x, spans, "mean"), (leaf(8, 2),))
    ids = torch.tensor([1, 1, 0], dtype=torch.int32)
    assert gradcheck(lambda table: ops.embed([(ids, table)], None, 0.0), (leaf(3, 2),))
