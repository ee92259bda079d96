"""Attention and its gradients against the reference op in float64, over lengths around the tiles."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from kernel_check import DEVICE, SEED, check, factors, leaf
from tolerance import training_bound

from fastce.backends.reference import ops as reference
from fastce.backends.triton.attention import attend
from fastce.backends.triton.attention_tiles import ONE_TILE, backward_tiles, forward_tiles
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout
from fastce.backends.triton.sequences import Rows
from fastce.packing import Spans
from fastce.spec import Attention

PLAIN = Attention(heads=2, head_dim=32)
ATTENTIONS = {
    "plain": PLAIN,
    "odd": Attention(heads=3, head_dim=13),
    "wide": Attention(heads=1, head_dim=80),
    "grouped": Attention(heads=4, head_dim=16, kv_heads=2),
    "window of 0": replace(PLAIN, window=0),
    "window": replace(PLAIN, window=5),
    "window past tiles": replace(PLAIN, window=33),  # the first query tile ends with the first key of a tile
    "causal": replace(PLAIN, causal=True),
    "everything": Attention(heads=4, head_dim=26, kv_heads=2, window=19, causal=True),
}
LENGTHS = {
    "one": [1],
    "short": [1, 2, 15, 16, 17],
    "around a tile": [31, 32, 33],
    "around two tiles": [63, 65, 2],
    "empty neighbours": [0, 5, 0, 0, 20, 0],
    "one tile, full": [128, 1],
    "more than one tile": [129, 3],
}


def check_attention(
    lengths: list[int],
    attention: Attention,
    *,
    rows: Rows = "all",
    probability: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> None:
    torch.manual_seed(sum(lengths) + attention.head_dim)
    spans = Spans.of(lengths).to(DEVICE)
    heads, kv_heads = attention.heads, attention.kv_heads or attention.heads
    total_rows = sum(lengths) if rows == "all" else len(lengths)
    counts = {"query": (total_rows, heads), "key": (sum(lengths), kv_heads), "value": (sum(lengths), kv_heads)}
    inputs = {name: leaf(torch.randn(*count, attention.head_dim), dtype) for name, count in counts.items()}
    dropout = Dropout(SEED, probability) if probability else NO_DROPOUT
    kept = factors(dropout, total_rows, max(lengths), heads)  # [total_rows, heads, keys]

    def run(*qkv: torch.Tensor) -> torch.Tensor:
        return attend(*qkv, spans, attention, rows, dropout)

    def expected(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if probability == 0.0:
            full = Spans.of([length for length in lengths if length])
            return reference.attention(query, key, value, full, attention, None if rows == "all" else rows, 0.0, None)
        key, value = (x.repeat_interleave(heads // kv_heads, 1) for x in (key, value))
        parts = (x.split(lengths if rows == "all" else 1) for x in (query, kept))
        outputs = []
        for q, mask, k, v in zip(*parts, key.split(lengths), value.split(lengths), strict=True):
            first = len(k) - 1 if rows == "last" else 0
            distance = torch.arange(len(k)) - torch.arange(first, first + len(q))[:, None, None]  # [queries, 1, keys]
            hidden = attention.causal & (distance > 0)
            if attention.window is not None:
                hidden = hidden | (distance.abs() > attention.window)
            scores = torch.einsum("ihd,jhd->ihj", q, k) / attention.head_dim**0.5
            weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            outputs.append(torch.einsum("ihj,jhd->ihd", weights * mask[..., : len(k)], v))
        return torch.cat(outputs)

    size = float((inputs["query"].norm(dim=-1).max() * inputs["key"].norm(dim=-1).max()).detach())
    amplification = 1 + size / attention.head_dim**0.5
    terms = max(lengths) * (heads // kv_heads) + attention.head_dim
    # The mean gradient is a product of rounded outputs: head_dim of them, with gradients of size 1.
    check(run, expected, inputs, terms, amplification, 1 + attention.head_dim**0.5)


@pytest.mark.parametrize("shape", LENGTHS)
def test_lengths(shape: str) -> None:
    check_attention(LENGTHS[shape], PLAIN)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_kinds(kind: str) -> None:
    check_attention([1, 17, 33], ATTENTIONS[kind])


@pytest.mark.parametrize("kind", ["window", "window past tiles", "causal", "everything"])
def test_kinds_of_many_tiles(kind: str) -> None:
    check_attention([2, 130], replace(ATTENTIONS[kind], heads=1, kv_heads=None))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", ["short", "around two tiles", "more than one tile"])
def test_half_precision(shape: str, dtype: torch.dtype) -> None:
    check_attention(LENGTHS[shape], PLAIN, dtype=dtype)


@pytest.mark.parametrize("lengths", [[1, 2, 33], [130, 3]], ids=["one tile", "more"])
@pytest.mark.parametrize("kind", ["plain", "everything"])
@pytest.mark.parametrize("rows", ["first", "last"])
def test_one_row_a_sequence(rows: Rows, kind: str, lengths: list[int]) -> None:
    check_attention(lengths, ATTENTIONS[kind], rows=rows)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[3, 17], [40]], ids=["one tile", "more"])
def test_heads_too_wide_to_train(lengths: list[int]) -> None:
    spans, attention, total = Spans.of(lengths).to(DEVICE), Attention(2, 200, kv_heads=1), sum(lengths)
    query, key, value = (torch.randn(total, heads, 200) for heads in (2, 1, 1))
    found = attend(*(x.to(DEVICE) for x in (query, key, value)), spans, attention, "all", NO_DROPOUT).cpu()
    doubles = query.double(), key.double(), value.double()
    expected = reference.attention(*doubles, Spans.of(lengths), attention, None, 0.0, None)
    size = float(query.norm(dim=-1).max() * key.norm(dim=-1).max()) / 200**0.5
    assert ((found - expected).abs() <= training_bound(expected, max(lengths) + 200, 1 + size)).all()


@pytest.mark.parametrize("rows", ["all", "last"])
@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_dropout(kind: str, rows: Rows) -> None:
    check_attention([3, 34], ATTENTIONS[kind], rows=rows, probability=0.4)


def test_dropout_of_many_tiles() -> None:
    check_attention([130], replace(PLAIN, heads=1), probability=0.4)


def test_rows_of_a_wider_matrix() -> None:
    """Queries, keys and values as the product of one matrix leaves them: side by side."""
    spans, attention = Spans.of([3, 18]).to(DEVICE), replace(PLAIN, head_dim=16)
    wide = torch.randn(21, 3 * 32, device=DEVICE)
    parts = [part.unflatten(-1, (2, 16)) for part in wide.split(32, -1)]
    together = [part.contiguous() for part in parts]
    found, expected = (attend(*x, spans, attention, "all", NO_DROPOUT) for x in (parts, together))
    assert torch.equal(found, expected)


def test_what_a_window_does_not_see_is_not_read() -> None:
    """Not a number in tiles that no query near sees would be seen."""
    spans, attention = Spans.of([300]).to(DEVICE), Attention(1, 16, window=5)
    query, key, value = torch.randn(3, 300, 1, 16, device=DEVICE)
    key[0] = value[0] = float("nan")
    inputs = [leaf(x) for x in (query, key, value)]
    output = attend(*inputs, spans, attention, "all", NO_DROPOUT)
    output[200:].sum().backward()
    assert output[:6].isnan().all()
    assert output[150:].isfinite().all()
    assert all(x.grad is not None and x.grad[200:].isfinite().all() for x in inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("longest", [1, 16, 17, 64, 65, 128, 129, 5000])
def test_tiles(longest: int, dtype: torch.dtype) -> None:
    """Tensor cores want 16 rows; short sequences are one tile; heads of a program are a divisor of all heads."""
    for attention, dropped in product((PLAIN, Attention(12, 64), Attention(7, 128)), (False, True)):
        cut = forward_tiles(dtype, attention, "all", longest, dropped=dropped)
        most = ONE_TILE if dtype == torch.float16 and not dropped else ONE_TILE // 2
        assert (longest <= cut.keys) == (longest <= most)
        assert attention.heads % cut.heads == 0
        for tiles in (cut, backward_tiles(dtype, attention, "all", longest)):
            assert min(tiles.queries, tiles.keys, tiles.dim) >= 16
            assert tiles.dim >= attention.head_dim
