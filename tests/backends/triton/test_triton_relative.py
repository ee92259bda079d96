"""What attention adds by distance, against the reference op in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_check import DEVICE, ROUNDING
from networks import BUCKETS
from tolerance import half_precision_bound, training_bound

from fastce.backends.ops import BiasTable, PositionTables, RelativeTables
from fastce.backends.reference import ops as reference
from fastce.backends.triton import ops
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
) -> None:
    relation = RELATIONS[kind]
    attention = Attention(2, 26, relation=relation, window=window, causal=rows == "last")
    spans, total = Spans.of(lengths), sum(lengths)
    query, key, value = (torch.randn(total, 2, 26).to(dtype) for _ in range(3))
    if rows is not None:
        query = reference.pool_rows(query, spans, rows)
    tables: RelativeTables = BiasTable(2 * torch.randn(12, 2))
    if isinstance(relation, DisentangledAttention):
        asked = relation.content_to_position, relation.position_to_content
        tables = PositionTables(*(torch.randn(12, 2, 26).to(dtype) if wanted else None for wanted in asked))
    double = type(tables)(*(None if table is None else table.double() for table in tables))
    qkv = query.double(), key.double(), value.double()
    expected = reference.attention(*qkv, spans, attention, rows, 0.0, double)
    on_device = type(tables)(*(None if table is None else table.to(DEVICE) for table in tables))
    parts = (x.to(DEVICE) for x in (query, key, value))
    found = ops.attention(*parts, spans.to(DEVICE), attention, rows, 0.0, on_device).cpu()
    size = float(query.float().norm(dim=-1).max() * key.float().norm(dim=-1).max()) / 26**0.5
    bound = training_bound(expected, max(lengths) + 26, 1 + size * score_terms(attention))
    if dtype in ROUNDING:
        # What contents and positions are to each other is rounded before it becomes part of an exponent.
        bound += half_precision_bound(expected, ROUNDING[dtype]) * (1 + size)
    assert ((found.double() - expected).abs() <= bound).all()


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


def test_tables_are_cut_to_the_rows_in_use() -> None:
    """A short batch meets few of a long table's rows."""
    from fastce.backends.triton.relative import rows_of_distances

    rows, first, end = rows_of_distances(RELATIONS["both"], 3, torch.device("cpu"))
    assert (first, end) == (4, 9)
    assert rows.tolist() == [0, 1, 2, 3, 4]
