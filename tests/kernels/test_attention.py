"""Attention of one head against float64, at every ISA level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from isa import SIZES, every_level
from tolerance import BFLOAT16, attention_bound

from fastce import _core


def exact_attention(
    operands: list[torch.Tensor], first_query: int, before: int | None, after: int | None
) -> torch.Tensor:
    """In float64."""
    query, key, value = (x.double() for x in operands)
    distance = torch.arange(len(key))[None] - torch.arange(first_query, first_query + len(query))[:, None]
    hidden = torch.zeros(len(query), len(key), dtype=torch.bool)
    if before is not None:
        hidden |= distance < -before
    if after is not None:
        hidden |= distance > after
    scores = (query @ key.T / query.shape[1] ** 0.5).masked_fill(hidden, -torch.inf)
    return scores.softmax(-1) @ value


def random_operands(queries: int, keys: int, dim: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(queries + 1000 * keys + 1000000 * dim)
    return [torch.randn(count, dim, generator=generator) for count in (queries, keys, keys)]


def check(
    queries: int,
    keys: int,
    dim: int,
    number_format: str,
    isa: str,
    *,
    spread: float = 1.0,
    first_query: int = 0,
    before: int | None = None,
    after: int | None = None,
) -> None:
    operands = [x * spread for x in random_operands(queries, keys, dim)]
    arrays = (x.numpy() for x in operands)
    actual = torch.from_numpy(_core.attention_kernel(*arrays, number_format, isa, first_query, before, after))
    if number_format == "bf16":
        operands = [x.bfloat16().float() for x in operands]
    expected = exact_attention(operands, first_query, before, after)
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


WINDOWS = [(0, 0), (5, 5), (64, 64), (None, 0), (17, 0), (0, None), (31, 33), (1000, 1000)]


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize(("before", "after"), WINDOWS)
def test_windows(before: int | None, after: int | None, number_format: str, isa: str) -> None:
    for length in (1, 2, 31, 48, 49, 97, 200):
        check(length, length, 26, number_format, isa, before=before, after=after)
        check(1, length, 26, number_format, isa, first_query=length // 2, before=before, after=after)


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize(("before", "after"), [(5, 5), (64, 64), (None, 0), (17, 0), (None, None)])
def test_a_query_depends_on_no_other(before: int | None, after: int | None, number_format: str, isa: str) -> None:
    query, key, value = (x.numpy() for x in random_operands(150, 150, 20))
    together = _core.attention_kernel(query, key, value, number_format, isa, 0, before, after)
    for first, last in ((0, 1), (47, 50), (100, 150), (149, 150)):
        some = _core.attention_kernel(query[first:last], key, value, number_format, isa, first, before, after)
        assert (some == together[first:last]).all()


@every_level
def test_what_a_query_does_not_see_does_not_matter(isa: str) -> None:
    query, key, value = (x.numpy() for x in random_operands(150, 150, 20))
    expected = _core.attention_kernel(query[70:80], key, value, "fp32", isa, 70, 9, 4)
    key[:61], value[:61], key[84:], value[84:] = 1e6, -1e6, -1e6, 1e6
    assert (_core.attention_kernel(query[70:80], key, value, "fp32", isa, 70, 9, 4) == expected).all()
