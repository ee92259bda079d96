"""Tables of scores, as they are written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from fastce.corpus.scorer import Scored
from fastce.corpus.store import digests_of_ids
from fastce.corpus.windows import RowWindow
from fastce.ranking import best, places

QUERY, FIRST_ROW = "_query", "_first_row"
"""Columns of candidates that tell queries apart, and say where each begins; never in what is finished."""

ID_COLUMNS = ("query_id", "document_id")


def table_of_rows(
    window: RowWindow, labels: list[str], kept: tuple[str, ...], *, has_ids: bool, is_ranked: bool
) -> pa.Table:
    """What is written beside the scores of a window's rows.

    Args:
        window: The rows.
        labels: The names of the model's labels.
        kept: The names of the further fields, in their order.
        has_ids: Whether their pairs are of ids, which are written then.
        is_ranked: Whether the best of each query will be looked for.

    Raises:
        ValueError: A further field has the name of a column that is written anyway.
    """
    columns: dict[str, pa.Array] = {"row": pa.array(window.rows)}
    if has_ids:
        columns |= {
            name: pa.array(ids, pa.string())
            for name, ids in zip(ID_COLUMNS, (window.first, window.second), strict=True)
        }
    for name in kept:
        if name in (*columns, QUERY, FIRST_ROW, "score", "scores", "rank", *(f"score_{label}" for label in labels)):
            raise ValueError(f"keep: a column called {name!r} is written anyway")
        columns[name] = window.others.column(name)
    if is_ranked:
        columns[QUERY] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(window.first), [None, pa.py_buffer(digests_of_ids(window.first).tobytes())]
        )
        first_rows: dict[str, int] = {}
        rows = zip(window.first, window.rows.tolist(), strict=True)
        columns[FIRST_ROW] = pa.array([first_rows.setdefault(query, row) for query, row in rows], pa.int64())
    return pa.table(columns)


def with_scores(rows: pa.Table, scored: Scored, labels: list[str], *, in_one_column: bool) -> pa.Table:
    """The rows that have scores, with them.

    Args:
        rows: The rows of a window.
        scored: What became of them.
        labels: The names of the model's labels.
        in_one_column: Whether several labels' scores are one column.
    """
    if len(scored.kept) < rows.num_rows:
        rows = rows.take(pa.array(scored.kept))
    if in_one_column:
        rows = in_words_of_json(rows)
    if len(labels) == 1:
        return rows.append_column("score", pa.array(scored.scores.reshape(-1), pa.float32()))
    scores = scored.scores.reshape(-1, len(labels))
    if in_one_column:
        flat = pa.array(np.ascontiguousarray(scores).ravel(), pa.float32())
        return rows.append_column(
            "scores", pa.FixedSizeListArray.from_arrays(flat, len(labels)).cast(pa.list_(pa.float32()))
        )
    for number, label in enumerate(labels):
        rows = rows.append_column(f"score_{label}", pa.array(np.ascontiguousarray(scores[:, number]), pa.float32()))
    return rows


def in_words_of_json(table: pa.Table) -> pa.Table:
    """A table whose times and decimal numbers are texts."""
    for place, column in enumerate(table.schema):
        if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
            table = table.set_column(place, column.name, table.column(place).cast(pa.string()))
    return table


def ranking(candidates: Iterable[pa.Table], top_k: int | None) -> pa.Table:
    """The best rows of each query, the queries in the order of their first rows, with ranks from 1 up.

    Args:
        candidates: Rows with scores, among them the best of each query.
        top_k: How many of each; None: all.
    """
    table = pa.concat_tables(candidates)
    table = table.take(pa.array(np.argsort(table.column("row").to_numpy(), kind="stable"))).combine_chunks()
    queries = table.column(QUERY).combine_chunks()
    names = np.frombuffer(queries.buffers()[1], dtype="S16", count=len(queries), offset=16 * queries.offset)
    _, found = np.unique(names, return_inverse=True)
    first_rows = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first_rows, found, table.column(FIRST_ROW).to_numpy())
    groups = first_rows[found]
    order = best(table.column("score").to_numpy(), groups, top_k)
    ranks = places(groups[order]) + 1
    return (
        table.take(pa.array(order)).drop_columns([QUERY, FIRST_ROW]).append_column("rank", pa.array(ranks, pa.int32()))
    )
