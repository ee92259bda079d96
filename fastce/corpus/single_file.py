"""Runs a job into a single file, or to standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import pyarrow as pa

from fastce.corpus.interrupts import interrupts_explained
from fastce.corpus.manifest import write_whole
from fastce.corpus.output import ranking, with_scores
from fastce.corpus.plan import Plan, Rows
from fastce.corpus.scorer import Scored, Scorer, Task
from fastce.corpus.statistics import Progress, Statistics
from fastce.corpus.windows import RowWindow, Windows
from fastce.corpus.writers import FORMATS, Format, check_kept
from fastce.pipeline import Window

STANDARD_OUTPUT = "-"

WINDOW = 4096
"""Rows read, scored and written at once: enough for batches of equal length, and soon there where somebody waits."""


WINDOWS_AHEAD = 128
"""Windows that may be read before the first of them is written: one slow worker must not pile up what others finish."""


def run_into_file(plan: Plan, scorer: Scorer, target: str, name: str, show_progress: bool | None) -> Statistics:
    """Scores all rows; a bad one is an error.

    Args:
        plan: What is scored.
        scorer: What scores.
        target: A file, or `"-"` for standard output. JSON lines and CSV are written as scoring goes.
        name: Its format.
        show_progress: Whether to show a bar.

    Raises:
        ValueError: A row can't be scored.
        OSError: A file can't be read or written.
        Interrupted: On a keyboard interrupt.
    """
    output = FORMATS[name]
    with Progress(show_progress, plan.source.count) as progress:
        items = items_of(plan, name)
        first = next(items, None)  # a source that can't be read leaves the target as it was
        tables = tables_of(plan, scorer, chain([] if first is None else [first], items), progress, output)
        if plan.is_ranked:
            tables = iter([ranking(tables, plan.scoring.top_k)])
        columns = (table.drop_columns(["row"]) for table in tables)
        if output.IS_WHOLE_ONLY and target != STANDARD_OUTPUT:
            write_whole(Path(target), lambda file: write_on(file, output, columns))
        else:
            name = "standard output" if target == STANDARD_OUTPUT else target

            def kept() -> str:
                return (
                    f"{name} has the scores of the first {progress.statistics.rows_read} pairs of {plan.source.name}, "
                    "the pairs behind them can be scored into another file"
                )

            with interrupts_explained(kept), open_target(target) as stream:
                write_on(stream, output, columns)
    return progress.statistics


def open_target(target: str) -> Any:
    """Opens a file, or standard output, which is left open."""
    return nullcontext(sys.stdout.buffer) if target == STANDARD_OUTPUT else open(target, "wb")


def items_of(plan: Plan, name: str) -> Iterator[tuple[Rows, Task]]:
    """Windows as things to score, for a file of a format."""
    for window in Windows(plan.source, plan.window, 0, lambda _: True):
        check_kept(window.others.schema, name)
        good, pairs = plan.resolved(window)
        if good.bad:
            raise ValueError(good.bad[0].reason)
        yield plan.item(good, pairs)


def tables_of(
    plan: Plan, scorer: Scorer, items: Iterator[tuple[Rows, Task]], progress: Progress, output: Format
) -> Iterator[pa.Table]:
    """Scored rows, in order; a table of none where there are none."""
    following, waiting, room = 0, {}, Semaphore(WINDOWS_AHEAD)
    try:
        for rows, scored in scorer.stream(as_room_is_made(items, room), progress.advance):
            waiting[rows.part] = rows, scored
            while (found := waiting.pop(following, None)) is not None:
                rows, scored = found
                yield with_scores(rows.table, scored, plan.labels, in_one_column=output.LABELS_IN_ONE_COLUMN)
                progress.written(rows.num_rows, 0, scored.computed, scored.tokens, scored.rescored)
                following += 1
                room.release()
    finally:
        room.release(WINDOWS_AHEAD)  # for the threads that wait, where this was not the end
    if not following:
        nothing = RowWindow(0, 0, 0, np.empty(0, np.int64), [], [], plan.no_others(), [])
        scored = Scored(np.empty(0, np.int64), np.empty((0, len(plan.labels)), np.float32), 0, 0, 0)
        rows, _ = plan.item(nothing, Window([], []))
        yield with_scores(rows.table, scored, plan.labels, in_one_column=output.LABELS_IN_ONE_COLUMN)


def as_room_is_made(items: Iterator[tuple[Rows, Task]], room: Semaphore) -> Iterator[tuple[Rows, Task]]:
    """Items, each when there is room for it."""
    for item in items:
        room.acquire()
        yield item


def write_on(stream: Any, output: Format, tables: Iterator[pa.Table]) -> None:
    """Writes tables one after the other."""
    writer = None
    for table in tables:
        writer = writer or output.open_file(stream, table.schema)
        writer.write(table)
    if writer is not None:
        writer.close()
