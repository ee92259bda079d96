"""What attention adds by distance, against the reference op in float64, with the gradients of its tables."""

from __future__ import annotations

import pytest
import torch
from kernel_check import DEVICE, SEED, check, factors, leaf
from networks import BUCKETS

from fastce.backends.ops import BiasTable, PositionTables, RelativeTables
from fastce.backends.reference import ops as reference
from fastce.backends.triton.attention import attend
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout
from fastce.backends.triton.relative import by_distance
from fastce.packing import Spans
from fastce.spec import Attention, DisentangledAttention, Pooling, RelativeBias
from fastce.steps import score_terms

RELATIONS = {
    "bias": RelativeBias(12, BUCKETS),
    "both": DisentangledAttention(6, BUCKETS, True, True, True, None),
    "content to position": DisentangledAttention(6, BUCKETS, True, False, True, None),
    "position to content": DisentangledAttention(6, BUCKETS, False, True, True, None),
}


def check_relation(
    kind: str,
    lengths: list[int],
    rows: Pooling | None = None,
    dtype: torch.dtype = torch.float32,
    window: int | None = None,
    probability: float = 0.0,
) -> None:
    torch.manual_seed(sum(lengths))
    relation = RELATIONS[kind]
    attention = Attention(2, 26, relation=relation, window=window, causal=rows == "last")
    spans, total = Spans.of(lengths).to(DEVICE), sum(lengths)
    total_rows = total if rows is None else len(lengths)
    values = {"query": torch.randn(total_rows, 2, 26), **{name: torch.randn(total, 2, 26) for name in ("key", "value")}}
    inputs = {name: leaf(x, dtype) for name, x in values.items()}
    if isinstance(relation, DisentangledAttention):
        asked = {
            "keys of positions": relation.content_to_position,
            "queries of positions": relation.position_to_content,
        }
        inputs |= {name: leaf(torch.randn(12, 2, 26), dtype) for name, wanted in asked.items() if wanted}
    else:
        inputs["bias"] = leaf(2 * torch.randn(12, 2))
    dropout = Dropout(SEED, probability) if probability else NO_DROPOUT
    kept = factors(dropout, total_rows, max(lengths), 2)  # [total_rows, heads, keys]

    def tables(parts: list[torch.Tensor]) -> RelativeTables:
        if isinstance(relation, RelativeBias):
            return BiasTable(*parts)
        left = iter(parts)
        return PositionTables(*(next(left) if wanted else None for wanted in asked.values()))

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        distances = by_distance(query, key, attention, tables(parts), max(lengths))
        return attend(query, key, value, spans, attention, rows or "all", dropout, distances)

    def expected(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        if probability == 0.0:
            there = Spans.of(lengths)
            return reference.attention(query, key, value, there, attention, rows, 0.0, tables(parts))
        outputs, scale = [], (26 * score_terms(attention)) ** -0.5
        for q, mask, k, v in zip(*(x.split(lengths) for x in (query, kept, key, value)), strict=True):
            distance = torch.arange(len(k)) - torch.arange(len(k))[:, None]
            met = [x.transpose(0, 1)[None] for x in (q, k)]
            added = reference.relative_scores(*met, reference.table_rows(attention, distance), tables(parts), scale)
            scores = torch.einsum("ihd,jhd->hij", q, k) * scale + added[0]
            weights = scores.softmax(-1) * mask[..., : len(k)].transpose(0, 1)
            outputs.append(torch.einsum("hij,jhd->ihd", weights, v))
        return torch.cat(outputs)

    size = float((inputs["query"].norm(dim=-1).max() * inputs["key"].norm(dim=-1).max()).detach()) / 26**0.5
    # Gradients of tables are sums over all pairs of tokens; what contents and positions are to each other is rounded
    # before it becomes part of an exponent.
    amplification = 1 + size * score_terms(attention)
    check(run, expected, inputs, total + max(lengths) + 26, amplification, 1 + size + 26**0.5, 1 + size)


@pytest.mark.parametrize("lengths", [[1], [3, 0, 17, 33], [70, 2]], ids=["one", "one tile", "more"])
@pytest.mark.parametrize("kind", RELATIONS)
def test_distances(kind: str, lengths: list[int]) -> None:
    check_relation(kind, [length for length in lengths if length])


@pytest.mark.parametrize("kind", ["bias", "both"])
@pytest.mark.parametrize("rows", ["first", "last"])
def test_one_row_a_sequence(rows: Pooling, kind: str) -> None:
    check_relation(kind, [3, 40, 1], rows)


@pytest.mark.parametrize("kind", ["bias", "both"])
def test_half_precision(kind: str) -> None:
    check_relation(kind, [3, 40], dtype=torch.float16)


def test_in_a_window() -> None:
    check_relation("both", [3, 80], window=9)


@pytest.mark.parametrize("kind", ["bias", "both"])
def test_dropout(kind: str) -> None:
    check_relation(kind, [3, 34], probability=0.4)


def test_tables_are_cut_to_the_rows_in_use() -> None:
    """A short batch meets few of a long table's rows."""
    from fastce.backends.triton.relative import rows_of_distances

    rows, first, end = rows_of_distances(RELATIONS["both"], 3, torch.device("cpu"))
    assert (first, end) == (4, 9)
    assert rows.tolist() == [0, 1, 2, 3, 4]
