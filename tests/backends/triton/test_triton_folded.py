"""Attention over the rows that keys and values would be formed of, against the reference op over these in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_check import DEVICE, ROUNDING
from networks import NETWORKS, Parameters, request
from tolerance import half_precision_bound, training_bound

from fastce.backends.base import load_backend
from fastce.backends.reference import ops as reference
from fastce.backends.triton.folded import attend_folded, tiles_of
from fastce.backends.weights import Linear, plain_linear
from fastce.packing import Spans
from fastce.spec import Attention

TILE = tiles_of(torch.float32).keys
LENGTHS = [1, 2, TILE - 1, TILE, TILE + 1, 3]
"""Short ones between those around a tile."""


def check_folded(
    lengths: list[int], attention: Attention, size: int, *, bias: bool = True, dtype: torch.dtype = torch.float32
) -> None:
    torch.manual_seed(sum(lengths) + size)
    spans, there = Spans.of(lengths), Spans.of(lengths).to(DEVICE)
    wide, narrow = (heads * attention.head_dim for heads in (attention.heads, attention.kv_heads or attention.heads))
    x = torch.randn(sum(lengths), size).to(dtype)
    query = torch.randn(len(lengths), wide).to(dtype).unflatten(-1, (attention.heads, -1))
    matrices = [(torch.randn(narrow, size) / size**0.5).to(dtype) for _ in range(2)]
    biases = [torch.randn(narrow).to(dtype) if bias else None for _ in range(2)]
    double = [
        plain_linear(weight.double(), None if added is None else added.double())
        for weight, added in zip(matrices, biases, strict=True)
    ]
    key, value = (linear(x.double()).unflatten(-1, (-1, attention.head_dim)) for linear in double)
    expected = reference.attention(query.double(), key, value, spans, attention, "first", 0.0, None)

    def on_device(part: Linear) -> Linear:
        return plain_linear(
            part.weight.tensor.to(DEVICE, dtype), None if part.bias is None else part.bias.tensor.to(DEVICE, dtype)
        )

    found = attend_folded(query.to(DEVICE), x.to(DEVICE), *map(on_device, double), there, attention).cpu()
    assert found.dtype == dtype
    scores = float(query.double().norm(dim=-1).max() * key.norm(dim=-1).max()) / attention.head_dim**0.5
    bound = training_bound(expected, max(lengths) + 2 * size, 1 + scores)
    if dtype in ROUNDING:  # queries times matrices are rounded once more, before they become part of an exponent
        bound += half_precision_bound(expected, ROUNDING[dtype], 1 + scores)
    excess = float(((found.double() - expected).abs() / bound).max())
    assert excess <= 1.0, f"{excess:.2f} times the error allowed"


@pytest.mark.parametrize("size", [31, 64, 70])
def test_lengths_and_widths(size: int) -> None:
    check_folded(LENGTHS, Attention(2, 26), size)


def test_one_very_long_beside_short_ones() -> None:
    check_folded([1, 300, 2], Attention(3, 13), 40)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 1), (20, 20)])
def test_heads_that_share_keys(heads: int, kv_heads: int) -> None:
    """And more of them than tensor cores have rows."""
    check_folded([3, 40, 1], Attention(heads, 8, kv_heads=kv_heads), 36)


def test_without_biases() -> None:
    check_folded([3, 5], Attention(2, 26), 52, bias=False)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_half_precision(dtype: torch.dtype) -> None:
    check_folded([70, 1, 65, 2], Attention(2, 26), 70, dtype=dtype)


def test_int8_leaves_what_is_folded_in_bfloat16() -> None:
    """But for what other layers read as well."""
    for name, layer, folded in (("as BERT", 2, torch.bfloat16), ("shared layers", 0, torch.int8)):
        parts = NETWORKS[name]
        encoder: Any = load_backend("triton").build(request(parts, Parameters(*parts), "int8", device=DEVICE))
        for part in ("key", "value"):
            assert encoder.weights.stored[f"layers.{layer}.{part}.weight"].whole.dtype == folded
        assert encoder.weights.stored["layers.0.query.weight"].whole.dtype == torch.int8
