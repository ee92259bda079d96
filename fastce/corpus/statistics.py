"""What a job has to tell: while it works, and at its end."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from fastce.pipeline import in_background
from fastce.progress import progress_bar


@dataclass
class Statistics:
    """Numbers of a job.

    Attributes:
        rows_read: Rows of the whole job, from its beginning on: `rows_scored + rows_skipped`.
        rows_scored: Rows that have scores.
        rows_skipped: Rows that could not be scored.
        rows_before: Rows of all these that an earlier run had done.
        pairs_computed: Distinct pairs that this run computed.
        tokens: Tokens of these.
        pairs_rescored: Those of them that were computed again in the other precision.
        seconds: How long this run took.
        seconds_to_first_part: How long it took until the first part was written; None without one.
        rows_per_second: Rows of this run, scored or skipped, a second.
        tokens_per_second: Tokens a second.
        peak_memory_bytes: The most memory that this process had.
    """

    rows_read: int = 0
    rows_scored: int = 0
    rows_skipped: int = 0
    rows_before: int = 0
    pairs_computed: int = 0
    tokens: int = 0
    pairs_rescored: int = 0
    seconds: float = 0.0
    seconds_to_first_part: float | None = None
    rows_per_second: float = 0.0
    tokens_per_second: float = 0.0
    peak_memory_bytes: int = 0


@dataclass
class Progress:
    """Counts, and shows what it has counted, on standard error.

    Attributes:
        show: Whether to show a bar; None shows one where fastce's logger is at INFO or below.
        count: Says how many rows there are in all, about; None where nobody knows. Asked in the background.
        statistics: What is counted.
    """

    show: bool | None
    count: Callable[[], int | None]
    statistics: Statistics = field(default_factory=Statistics)

    def __enter__(self) -> Progress:
        self._start = monotonic()
        self._bar = progress_bar(self.show, total=None, description="Scoring", unit="pairs")
        self._total = in_background(self.count) if not self._bar.disable else Future()
        self._shown = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        found = self.statistics
        found.seconds = monotonic() - self._start
        done = found.rows_read - found.rows_before
        found.rows_per_second, found.tokens_per_second = done / found.seconds, found.tokens / found.seconds
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found.peak_memory_bytes = peak if sys.platform == "darwin" else peak * 1024

    def resume(self, rows: int, skipped: int) -> None:
        """Counts what an earlier run has done."""
        found = self.statistics
        found.rows_before += rows
        self._bar.initial = found.rows_before  # which took this run no time
        self._count(rows, skipped)

    def advance(self, pairs: int) -> None:
        """Shows pairs that were computed, whose window is not done yet."""
        self._shown += pairs
        if self._bar.total is None and self._total.done() and self._total.exception() is None:
            self._bar.total = self._total.result()
        self._bar.update(pairs)

    def written(self, rows: int, skipped: int, computed: int, tokens: int, rescored: int) -> None:
        """Counts a window."""
        found = self.statistics
        found.pairs_computed += computed
        found.tokens += tokens
        found.pairs_rescored += rescored
        self._count(rows, skipped)
        seconds = monotonic() - self._start
        if found.seconds_to_first_part is None:
            found.seconds_to_first_part = seconds
        facts: dict[str, Any] = {"tokens/s": f"{found.tokens / seconds:,.0f}", "bad": found.rows_skipped}
        self._bar.set_postfix(facts, refresh=False)

    def _count(self, rows: int, skipped: int) -> None:
        found = self.statistics
        found.rows_read += rows
        found.rows_scored += rows - skipped
        found.rows_skipped += skipped
        self.advance(max(0, found.rows_read - self._shown))  # bad rows are never computed
