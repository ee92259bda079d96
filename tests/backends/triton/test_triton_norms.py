"""Norms at the ends of sublayers, of heads and of embeddings against the reference ops in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_check import DEVICE, SEED, check, factors, leaf

from fastce.backends.reference import ops as reference
from fastce.backends.triton import ops
from fastce.backends.triton.add_norm import add_norm, normalize
from fastce.backends.triton.blocks import blocks_of_rows
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout
from fastce.backends.triton.embed import embed
from fastce.backends.weights import NormWeights
from fastce.spec import LayerNorm, Norm, RMSNorm

NORMS = [LayerNorm(1e-5), LayerNorm(1e-12, bias=False), RMSNorm(1e-6)]
SHAPES = [(1, 1), (2, 3), (7, 64), (blocks_of_rows(52).rows, 52), (blocks_of_rows(52).rows + 1, 52), (3, 1025)]
"""One, odd, a block of rows, one row more, a row that is wider than a block."""


def norm_inputs(norm: Norm, size: int) -> dict[str, torch.Tensor]:
    inputs = {"weight": leaf(1 + 0.3 * torch.randn(size))}
    if isinstance(norm, LayerNorm) and norm.bias:
        inputs["norm bias"] = leaf(torch.randn(size))
    return inputs


def amplification(x: torch.Tensor) -> float:
    """A norm amplifies errors of its input by the inverse deviation, which goes once more into gradients."""
    return float((1 + 1 / (x.detach().std(-1, correction=0).min() + 1e-3)) ** 2)


@pytest.mark.parametrize("keep_sum", [True, False])
@pytest.mark.parametrize("norm", NORMS, ids=["layer", "without bias", "rms"])
@pytest.mark.parametrize(("rows", "size"), SHAPES[1:])
def test_add_norm(rows: int, size: int, norm: Norm, keep_sum: bool) -> None:
    check_add_norm(rows, size, norm, keep_sum=keep_sum)


@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keep_sum", [True, False])
def test_a_half_precision_product(keep_sum: bool, dtype: torch.dtype, probability: float) -> None:
    """The stream stays in float32: two results with a gradient of their own, also where their values equal."""
    check_add_norm(21, 52, NORMS[0], keep_sum=keep_sum, probability=probability, dtype=dtype)


def test_dropout_without_a_bias() -> None:
    check_add_norm(21, 52, NORMS[2], keep_sum=True, probability=0.3, with_bias=False)


def check_add_norm(
    rows: int,
    size: int,
    norm: Norm,
    *,
    keep_sum: bool,
    probability: float = 0.0,
    dtype: torch.dtype = torch.float32,
    with_bias: bool = True,
) -> None:
    inputs = {"x": leaf(torch.randn(rows, size), dtype), "stream": leaf(torch.randn(rows, size))}
    if with_bias:
        inputs["bias"] = leaf(torch.randn(size))
    inputs |= norm_inputs(norm, size)
    dropout = Dropout(SEED, probability) if probability else NO_DROPOUT
    kept = factors(dropout, rows, size)[:, 0]
    is_one = not keep_sum and dtype == torch.float32

    def split(values: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, NormWeights]:
        x, stream, *others = values
        bias = others.pop(0) if with_bias else None
        return x, stream, bias, NormWeights(norm, others[0], others[1] if len(others) == 2 else None)

    def run(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, stream, bias, weights = split(values)
        result = add_norm(x, bias, stream, weights, dropout, keep_sum=keep_sum)
        assert [part.dtype for part in result] == [torch.float32, dtype]
        assert (result[0] is result[1]) == is_one
        return result[:1] if is_one else result

    def expected(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, stream, bias, weights = split(values)
        total = (x if bias is None else x + bias) * kept + stream
        normed = reference.normalize(total, weights)
        return (normed,) if is_one else (total if keep_sum else normed, normed)

    x, stream, bias, _ = split(tuple(inputs.values()))
    total = (x.float() if bias is None else x + bias).cpu() * kept + stream.cpu()
    check(run, expected, inputs, rows + size, amplification(total))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("norm", NORMS, ids=["layer", "without bias", "rms"])
def test_norms_of_heads_side_by_side(norm: Norm, dtype: torch.dtype) -> None:
    """Heads of queries as a product leaves them, between those of keys."""
    inputs = {"x": leaf(torch.randn(5, 6, 13), dtype)} | norm_inputs(norm, 13)

    def weights(values: tuple[torch.Tensor, ...]) -> NormWeights:
        return NormWeights(norm, values[0], values[1] if len(values) == 2 else None)

    check(
        lambda x, *others: normalize(x[:, 1:4], weights(others)),
        lambda x, *others: reference.normalize(x[:, 1:4], weights(others)),
        inputs,
        15 + 13,
        amplification(inputs["x"].float().cpu()),
    )


@pytest.mark.parametrize("norm", NORMS, ids=["layer", "without bias", "rms"])
@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("tables", [1, 2, 3])
def test_embeddings(tables: int, probability: float, norm: Norm) -> None:
    tokens, size = 23, 52
    ids = [torch.randint(rows, (tokens,), dtype=torch.int32) for rows in (40, 2, 30)[:tables]]
    inputs = {f"table {number}": leaf(torch.randn(40, size)) for number in range(tables)} | norm_inputs(norm, size)
    dropout = Dropout(SEED, probability) if probability else NO_DROPOUT
    kept = factors(dropout, tokens, size)[:, 0]

    def split(
        values: tuple[torch.Tensor, ...], device: str
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], NormWeights]:
        weight, *bias = values[tables:]
        rows = [(number.to(device), table) for number, table in zip(ids, values, strict=False)]
        return rows, NormWeights(norm, weight, bias[0] if bias else None)

    def expected(*values: torch.Tensor) -> torch.Tensor:
        return reference.embed(*split(values, "cpu"), 0.0) * kept

    summed = reference.embedding_sum(split(tuple(x.cpu() for x in inputs.values()), "cpu")[0])
    check(
        lambda *values: embed(*split(values, DEVICE), dropout), expected, inputs, tokens + size, amplification(summed)
    )


def test_embeddings_without_a_norm() -> None:
    ids, table = torch.arange(4, dtype=torch.int32, device=DEVICE), torch.randn(5, 8, device=DEVICE)
    assert torch.equal(ops.embed([(ids, table)], None, 0.0), table[:4])
    dropped = ops.embed([(ids, table)], None, 0.5)
    assert ((dropped == 0) | (dropped == 2 * table[:4])).all()
