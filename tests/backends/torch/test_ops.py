"""The reference ops against their formulas, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastce.backends.torch import ops

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
DOUBLE = 1e-12
"""Everything here is float64 with sums of at most some hundred terms of order one: 2^-53 times a thousand."""


def attention_by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One head of one sequence: [queries, dim], [keys, dim], [keys, dim]."""
    scores = query @ key.T / math.sqrt(query.shape[1])
    weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    return weights @ value


@settings(deadline=None)
@given(lengths=LENGTHS, heads=st.integers(1, 3), dim=st.sampled_from([1, 4, 20, 26]), first_only=st.booleans())
def test_varlen_attention(lengths: list[int], heads: int, dim: int, first_only: bool) -> None:
    query_lengths = [1] * len(lengths) if first_only else lengths
    query, key, value = (
        torch.randn(sum(sizes), heads, dim, dtype=torch.float64) for sizes in (query_lengths, lengths, lengths)
    )
    actual = ops.varlen_attention(query, key, value, query_lengths, lengths)
    parts = zip(query.split(query_lengths), key.split(lengths), value.split(lengths), strict=True)
    expected = torch.cat(
        [
            torch.stack([attention_by_hand(q[:, head], k[:, head], v[:, head]) for head in range(heads)], dim=1)
            for q, k, v in parts
        ]
    )
    assert actual.shape == query.shape
    assert (actual - expected).abs().max() < DOUBLE


def test_attention_dropout_keeps_the_mean() -> None:
    ones = torch.ones(4000, 1, 1)
    dropped = ops.varlen_attention(ones, ones, ones, [20] * 200, [20] * 200, dropout=0.5)
    assert dropped.std() > 0.01
    assert abs(dropped.mean() - 1) < 0.05


def test_layer_norm() -> None:
    x, residual = torch.randn(2, 7, 60, dtype=torch.float64)
    weight, bias = torch.randn(2, 60, dtype=torch.float64)
    total = x + residual
    variance = ((total - total.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True)
    expected = (total - total.mean(1, keepdim=True)) / (variance + 1e-5).sqrt() * weight + bias
    assert (ops.residual_layer_norm(x, residual, weight, bias, 1e-5) - expected).abs().max() < DOUBLE


def test_layer_norm_adds_in_the_dtype_of_the_residual() -> None:
    x, residual = torch.randn(3, 8).bfloat16(), torch.randn(3, 8)
    assert ops.residual_layer_norm(x, residual, torch.ones(8), torch.zeros(8), 1e-5).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("gelu_tanh", lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("relu", lambda x: max(x, 0.0)),
        ("tanh", math.tanh),
    ],
)
def test_activations(name: str, formula: object) -> None:
    x = torch.linspace(-9, 9, 721, dtype=torch.float64)
    expected = torch.tensor([formula(value) for value in x.tolist()], dtype=torch.float64)
    assert (ops.activate(x, name) - expected).abs().max() < DOUBLE


def test_linear_computes_in_the_dtype_of_the_weight() -> None:
    x, weight, bias = torch.randn(5, 8), torch.randn(3, 8), torch.randn(3)
    exact = x.double() @ weight.double().T + bias.double()
    assert (ops.linear(x, weight.double(), bias.double()) - exact).abs().max() < DOUBLE
    assert ops.linear(x, weight.bfloat16(), bias.bfloat16()).dtype == torch.bfloat16


def test_embedding_sum() -> None:
    words, positions = torch.randn(10, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    ids, places = torch.tensor([3, 9, 0], dtype=torch.int32), torch.tensor([0, 5, 1], dtype=torch.int32)
    expected = words[[3, 9, 0]] + positions[[0, 5, 1]]
    assert torch.equal(ops.embedding_sum([(ids, words), (places, positions)]), expected)


def test_gradients() -> None:
    """Every op is differentiable with respect to every float that it takes."""

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    lengths = [3, 1, 2, 2]
    assert torch.autograd.gradcheck(
        lambda q, k, v: ops.varlen_attention(q, k, v, lengths, lengths), (leaf(8, 2, 3), leaf(8, 2, 3), leaf(8, 2, 3))
    )
    assert torch.autograd.gradcheck(
        lambda x, r, w, b: ops.residual_layer_norm(x, r, w, b, 1e-5), (leaf(3, 5), leaf(3, 5), leaf(5), leaf(5))
    )
    assert torch.autograd.gradcheck(ops.linear, (leaf(3, 5), leaf(2, 5), leaf(2)))
    assert torch.autograd.gradcheck(lambda x: ops.activate(x, "gelu"), (leaf(3, 5),))
    assert torch.autograd.gradcheck(
        lambda table: ops.embedding_sum([(torch.tensor([1, 1, 0], dtype=torch.int32), table)]), (leaf(3, 2),)
    )
