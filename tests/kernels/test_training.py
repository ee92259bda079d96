"""The ops of training and their gradients against the reference ops in float64, at every ISA level."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from isa import every_level
from tolerance import BFLOAT16, training_bound

from fastce import _core
from fastce.backends.cpp import ops
from fastce.backends.torch import ops as reference

DTYPES = (torch.float32, torch.bfloat16)
SEEDS = (3, 0x123456789ABCDEF)


def leaf(values: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return values.to(dtype).requires_grad_()


def double(x: torch.Tensor) -> torch.Tensor:
    return x.detach().double().requires_grad_()


def mask(isa: str, dropout: ops.Dropout, rows: int, columns: int) -> torch.Tensor:
    return torch.from_numpy(_core.Training(isa=isa).dropout_factors(dropout, rows, columns)).double()


def check(
    run: Callable[..., torch.Tensor],
    expected_run: Callable[..., torch.Tensor],
    inputs: list[torch.Tensor],
    terms: int,
    amplification: float = 1.0,
) -> None:
    """Compares results and the gradients of all inputs, for a random gradient of the result."""
    exact = [double(x) for x in inputs]
    actual, expected = run(*inputs), expected_run(*exact)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(actual.dtype)
    actual.backward(gradient)
    expected.backward(gradient.double())
    pairs = [(actual, expected), *((x.grad, y.grad) for x, y in zip(inputs, exact, strict=True))]
    for number, (found, right) in enumerate(pairs):
        assert found is not None
        assert right is not None
        rounding = BFLOAT16 if found.dtype == torch.bfloat16 else 0.0
        bound = training_bound(right, terms, amplification, rounding)
        assert ((found.double() - right).abs() <= bound).all(), f"result and gradients, number {number}"


@pytest.fixture
def at_level(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda isa: monkeypatch.setattr(ops, "kernels", lambda: _core.Training(isa=isa))


@every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 7), (70, 31), (130, 100), (64, 384), (65, 16)])
@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_norm(
    at_level: Callable[[str], None], isa: str, rows: int, columns: int, probability: float, dtype: torch.dtype
) -> None:
    at_level(isa)
    torch.manual_seed(rows + columns)
    first, second = (seed if probability else 0 for seed in SEEDS)
    dropouts = (first, probability), (second, probability)
    factors = [mask(isa, dropout, rows, columns) for dropout in dropouts]
    inputs = [
        leaf(torch.randn(rows, columns), dtype),
        leaf(torch.randn(columns)),
        leaf(torch.randn(rows, columns)),
        leaf(torch.randn(columns)),
        leaf(torch.randn(columns)),
    ]

    def expected(x: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor, *norm: torch.Tensor) -> torch.Tensor:
        return F.layer_norm((x + bias) * factors[0] + residual, (columns,), *norm, 1e-5) * factors[1]

    spread = ((inputs[0] + inputs[1]) * factors[0] + inputs[2]).detach()
    smallest = float((spread.var(-1, correction=0) + 1e-5).sqrt().min())
    check(
        lambda *tensors: ops.NormFunction.apply(*tensors, 1e-5, *dropouts),
        expected,
        inputs,
        rows + columns,
        amplification=1 + 4 / smallest**2,
    )


@every_level
def test_norm_of_the_residual_alone(at_level: Callable[[str], None], isa: str) -> None:
    at_level(isa)
    torch.manual_seed(0)
    inputs = [leaf(torch.randn(9, 50)), leaf(torch.randn(50)), leaf(torch.randn(50))]
    check(
        lambda *x: ops.NormFunction.apply(None, None, *x, 1e-5, ops.NO_DROPOUT, ops.NO_DROPOUT),
        lambda x, *norm: F.layer_norm(x, (50,), *norm, 1e-5),
        inputs,
        60,
    )


@every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (70, 31), (130, 100), (64, 384)])
def test_gelu(at_level: Callable[[str], None], isa: str, rows: int, columns: int, dtype: torch.dtype) -> None:
    at_level(isa)
    torch.manual_seed(rows + columns)
    inputs = [leaf(3 * torch.randn(rows, columns), dtype), leaf(torch.randn(columns))]
    check(ops.GeluFunction.apply, lambda x, bias: F.gelu(x + bias), inputs, rows)


@every_level
def test_gelu_over_its_range(at_level: Callable[[str], None], isa: str) -> None:
    at_level(isa)
    x = torch.cat([torch.linspace(-12, 12, 30_000), torch.tensor([0.0, -0.0, 1e-30, 50.0, -50.0, 1e4, -1e4])])
    check(ops.GeluFunction.apply, lambda x, bias: F.gelu(x + bias), [leaf(x[:, None]), leaf(torch.zeros(1))], len(x))
    one_by_one = leaf(x[None])
    ops.GeluFunction.apply(one_by_one, torch.zeros(len(x))).sum().backward()
    exact = double(x)
    F.gelu(exact).sum().backward()
    assert one_by_one.grad is not None
    assert exact.grad is not None
    assert (one_by_one.grad[0] - exact.grad).abs().max() < 4e-7
    broken = leaf(torch.tensor([[float("nan")]]))
    output = ops.GeluFunction.apply(broken, torch.zeros(1))
    output.backward(torch.ones(1, 1))
    assert output.isnan().all()
    assert broken.grad is not None
    assert broken.grad.isnan().all()


def check_attention(
    isa: str, lengths: list[int], heads: int, dim: int, probability: float, dtype: torch.dtype, *, first_only: bool
) -> None:
    torch.manual_seed(sum(lengths) + dim)
    query_lengths = [1] * len(lengths) if first_only else lengths
    shapes = [(sum(counts), heads, dim) for counts in (query_lengths, lengths, lengths)]
    inputs = [leaf(torch.randn(shape), dtype) for shape in shapes]
    dropout = (SEEDS[1] if probability else 0, probability)
    factors = mask(isa, dropout, sum(query_lengths) * heads, max(lengths)).unflatten(0, (-1, heads))

    def expected(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        parts = query.split(query_lengths), key.split(lengths), value.split(lengths)
        outputs = []
        for q, k, v, kept in zip(*parts, factors.split(query_lengths), strict=True):
            scores = torch.einsum("ihd,jhd->ihj", q, k) / dim**0.5
            outputs.append(torch.einsum("ihj,jhd->ihd", scores.softmax(-1) * kept[..., : len(k)], v))
        return torch.cat(outputs)

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        sequences = ops.cumulative(query_lengths), ops.cumulative(lengths)
        flat = ops.AttentionFunction.apply(*(x.flatten(1) for x in (query, key, value)), heads, *sequences, dropout)
        return flat.view(query.shape)

    largest = float((inputs[0].norm(dim=-1).max() * inputs[1].norm(dim=-1).max()).detach()) / dim**0.5
    amplification = 1 + largest
    if dtype == torch.bfloat16:  # the backward pass reads the rounded output
        amplification += BFLOAT16 / 2**-24 / (max(lengths) + dim)
    check(run, expected, inputs, max(lengths) + dim, amplification)


@every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("probability", [0.0, 0.4])
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize(
    ("lengths", "heads", "dim"),
    [([1], 1, 1), ([3, 1, 7], 2, 26), ([16, 33, 48, 49], 3, 32), ([130, 2], 1, 64), ([5, 100], 2, 40)],
)
def test_attention(
    at_level: Callable[[str], None],
    isa: str,
    lengths: list[int],
    heads: int,
    dim: int,
    probability: float,
    dtype: torch.dtype,
    first_only: bool,
) -> None:
    at_level(isa)
    check_attention(isa, lengths, heads, dim, probability, dtype, first_only=first_only)


@given(st.lists(st.integers(1, 120), min_size=1, max_size=5), st.integers(1, 3), st.integers(1, 70))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_attention_of_any_shape(lengths: list[int], heads: int, dim: int) -> None:
    check_attention("", lengths, heads, dim, 0.2, torch.float32, first_only=False)


@every_level
def test_embedding(at_level: Callable[[str], None], isa: str) -> None:
    at_level(isa)
    torch.manual_seed(0)
    ids = [torch.randint(0, rows, (300,), dtype=torch.int32) for rows in (40, 2, 20)]
    inputs = [leaf(torch.randn(rows, 70)) for rows in (40, 2, 20)]
    check(
        lambda *tables: ops.EmbeddingFunction.apply([x.numpy() for x in ids], *tables),
        lambda *tables: reference.embedding_sum(list(zip(ids, tables, strict=True))),
        inputs,
        300,
    )
    with pytest.raises(ValueError, match="ids: 40 is not below 40"):
        ops.EmbeddingFunction.apply([np.array([40], np.int32)], inputs[0])


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_is_fair_and_the_same_at_every_level(probability: float) -> None:
    rows, columns = 300, 387
    masks = [
        _core.Training(isa=isa).dropout_factors((seed, probability), rows, columns)
        for isa in _core.isa_levels()
        for seed in SEEDS
    ]
    for first, other in zip(masks[:2] * (len(masks) // 2), masks, strict=True):
        assert np.array_equal(first, other)
    for factors in masks[:2]:
        dropped = factors == 0
        assert np.allclose(factors[~dropped], 1 / (1 - probability))
        deviation = (probability * (1 - probability)) ** 0.5
        assert abs(dropped.mean() - probability) < 5 * deviation / (rows * columns) ** 0.5
        assert abs(dropped.mean(0) - probability).max() < 5 * deviation / rows**0.5
        assert abs(dropped.mean(1) - probability).max() < 5 * deviation / columns**0.5
        for shifted in (dropped[1:] & dropped[:-1], dropped[:, 1:] & dropped[:, :-1]):
            expected = probability**2
            assert abs(shifted.mean() - expected) < 5 * (expected * (1 - expected) / shifted.size) ** 0.5
    both = (masks[0] == 0) & (masks[1] == 0)
    assert abs(both.mean() - probability**2) < 5 * (probability**2 * (1 - probability**2) / both.size) ** 0.5


def test_gradients_depend_on_no_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        torch.manual_seed(0)
        x, weight, bias = leaf(torch.randn(500, 48)), leaf(torch.randn(48)), leaf(torch.randn(48))
        output = ops.NormFunction.apply(x, bias, x.detach(), weight, bias, 1e-5, (1, 0.1), (2, 0.1))
        context = ops.varlen_attention(*(output.unflatten(1, (4, 12)),) * 3, [300, 200], [300, 200], 0.1)
        ops.GeluFunction.apply(context.flatten(1), bias).sum().backward()
        results.append([x.grad, weight.grad, bias.grad])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_seeds_come_from_torch() -> None:
    torch.manual_seed(5)
    seeds = [ops.draw(0.5) for _ in range(3)]
    torch.manual_seed(5)
    assert seeds == [ops.draw(0.5) for _ in range(3)]
    assert len(set(seeds)) == 3
    assert ops.draw(0.0) == ops.NO_DROPOUT
