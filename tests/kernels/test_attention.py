"""Attention of one head against the reference op in float64, at every ISA level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from isa import SIZES, every_level
from tolerance import BFLOAT16, attention_bound

from fastce import _core
from fastce.backends.torch import ops


def check(queries: int, keys: int, dim: int, number_format: str, isa: str, *, spread: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(queries + 1000 * keys + 1000000 * dim)
    operands = [torch.randn(count, dim, generator=generator) * spread for count in (queries, keys, keys)]
    actual = torch.from_numpy(_core.attention_kernel(*(x.numpy() for x in operands), number_format, isa))
    if number_format == "bf16":
        operands = [x.bfloat16().float() for x in operands]
    query, key, value = (x.double().unsqueeze(1) for x in operands)
    expected = ops.varlen_attention(query, key, value, [queries], [keys]).squeeze(1)
    bound = attention_bound(*operands, weight_rounding=BFLOAT16 if number_format == "bf16" else 0.0)
    assert (actual - expected).abs().max() <= bound


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize("dim", [2, 20, 26, 32, 64, 128])
def test_lengths(dim: int, number_format: str, isa: str) -> None:
    for length in (*SIZES, 150):
        check(length, length, dim, number_format, isa)


@every_level
@pytest.mark.parametrize("dim", [1, 13, 384])
def test_any_width_in_fp32(dim: int, isa: str) -> None:
    for length in (1, 7, 50):
        check(12, length, dim, "fp32", isa)


@every_level
@given(st.integers(1, 120), st.integers(1, 300), st.integers(1, 70), st.floats(0.1, 6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_shape(isa: str, queries: int, keys: int, dim: int, spread: float) -> None:
    check(queries, keys, dim, "fp32", isa, spread=spread)
    check(queries, keys, 2 * dim, "bf16", isa, spread=spread)


@every_level
def test_one_key_takes_all(isa: str) -> None:
    query = torch.full((3, 8), 40.0)
    key = torch.stack([torch.full((8,), x) for x in (-40.0, 40.0, 0.0)])
    value = torch.tensor([1.0, 2.0, 4.0])[:, None].expand(3, 8).contiguous()
    output = _core.attention_kernel(query.numpy(), key.numpy(), value.numpy(), "fp32", isa)
    assert (output == 2.0).all()
