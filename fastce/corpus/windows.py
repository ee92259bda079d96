"""Rows a window at a time: what becomes a part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fastce.corpus.source import Chunk, RowSource


class BadRow(NamedTuple):
    """A row that can't be scored.

    Attributes:
        row: Its number, from 0 up through all files.
        reason: Why.
    """

    row: int
    reason: str


class RowWindow(NamedTuple):
    """Rows that are scored, written and kept or lost together.

    Attributes:
        part: Its number, from 0 up.
        start: The number of its first row.
        num_rows: How many rows were read.
        rows: The numbers of those that can be scored, int64 `[num_good]`.
        first: Their first texts, or ids.
        second: Their second ones.
        others: Their further fields.
        bad: The rows that can't be scored.
    """

    part: int
    start: int
    num_rows: int
    rows: np.ndarray
    first: list[str]
    second: list[str]
    others: pa.Table
    bad: list[BadRow]

    def digest(self, num_rows: int) -> str:
        """A digest of the pairs and further fields among the first rows, in hexadecimal digits."""
        size = int(np.searchsorted(self.rows, self.start + num_rows))
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.rows[:size].tolist(), self.first[:size], self.second[:size]]).encode())
        if self.others.num_columns:
            digest.update(json.dumps(self.others.slice(0, size).to_pylist(), default=str).encode())
        return digest.hexdigest()

    def without(self, missing: dict[int, str]) -> RowWindow:
        """The window with some of its good rows, by their places among them, for bad ones."""
        if not missing:
            return self
        kept = np.array([place for place in range(len(self.rows)) if place not in missing], dtype=np.int64)
        bad = [BadRow(int(self.rows[place]), reason) for place, reason in missing.items()]
        return self._replace(
            rows=self.rows[kept],
            first=[self.first[place] for place in kept],
            second=[self.second[place] for place in kept],
            others=self.others.take(pa.array(kept)),
            bad=sorted(self.bad + bad),
        )


class Windows:
    """Windows of so many rows each, but for the last one.

    Args:
        source: The rows.
        size: Rows of a window.
        first: The first part to look at; rows before it are passed over.
        is_wanted: Says of a part's number whether its window is; rows of others are read and forgotten.

    Attributes:
        end: How many rows there are up to the last one that was read, those before the first part included where there
            is any behind them.
    """

    def __init__(self, source: RowSource, size: int, first: int, is_wanted: Callable[[int], bool]):
        self.end = 0
        self._source, self._size, self._first, self._is_wanted = source, size, first, is_wanted

    def __iter__(self) -> Iterator[RowWindow]:
        part, start = self._first, self._first * self._size
        chunks = self._source.chunks(start)
        waiting: list[Chunk] = []
        while True:
            count = sum(map(len, waiting))
            chunk = next(chunks, None) if count < self._size else None
            if chunk is not None:
                waiting.append(chunk)
                continue
            if not count:
                return
            taken = min(self._size, count)
            left = len(waiting[-1]) - (count - taken)
            self.end = start + taken
            if self._is_wanted(part):
                yield window_of(part, start, [*waiting[:-1], waiting[-1].slice(0, left)])
            waiting = [waiting[-1].slice(left)] if left < len(waiting[-1]) else []
            part, start = part + 1, start + taken


def window_of(part: int, start: int, chunks: list[Chunk]) -> RowWindow:
    """The window of some chunks of rows."""
    rows, first, second, others = [], [], [], []
    bad: list[BadRow] = []
    begin = start
    for chunk in chunks:
        good = [row for row in range(len(chunk)) if row not in chunk.bad]
        rows += [begin + row for row in good]
        first += [chunk.first[row] for row in good]
        second += [chunk.second[row] for row in good]
        others.append(chunk.others.take(pa.array(good, pa.int64())) if chunk.bad else chunk.others)
        bad += [BadRow(begin + row, str(chunk.bad[row])) for row in sorted(chunk.bad)]
        begin += len(chunk)
    table = pa.concat_tables(others)
    return RowWindow(part, start, begin - start, np.array(rows, dtype=np.int64), first, second, table, bad)
