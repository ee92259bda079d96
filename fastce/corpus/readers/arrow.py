"""Parquet, and Arrow's own files (also called Feather)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastce.corpus.readers.files import InputFile, open_bytes

ROWS_PER_BATCH = 8192


class ParquetTable:
    """A Parquet file.

    Args:
        stream: Its bytes.
    """

    def __init__(self, stream: Any):
        from pyarrow import parquet

        self._file = parquet.ParquetFile(stream)
        self.schema: pa.Schema = self._file.schema_arrow
        self.num_rows: int = self._file.metadata.num_rows

    def batches(self, columns: Sequence[str], start: int) -> Iterator[Any]:
        """Record batches of some columns from a row on; groups of rows before it are not read."""
        first, metadata = 0, self._file.metadata
        while first < metadata.num_row_groups and start >= metadata.row_group(first).num_rows:
            start -= metadata.row_group(first).num_rows
            first += 1
        groups = list(range(first, metadata.num_row_groups))
        if groups:
            yield from behind(start, self._file.iter_batches(ROWS_PER_BATCH, row_groups=groups, columns=list(columns)))


class ArrowTable:
    """A file in Arrow's own format.

    Args:
        stream: Its bytes.
    """

    def __init__(self, stream: Any):
        self._file = pa.ipc.open_file(stream)
        self.schema: pa.Schema = self._file.schema
        self._sizes = [self._file.get_batch(number).num_rows for number in range(self._file.num_record_batches)]
        self.num_rows = sum(self._sizes)

    def batches(self, columns: Sequence[str], start: int) -> Iterator[Any]:
        """Record batches of some columns from a row on."""
        whole = (self._file.get_batch(number).select(list(columns)) for number in range(len(self._sizes)))
        yield from behind(start, whole)


def behind(start: int, batches: Iterator[Any]) -> Iterator[Any]:
    """What is left of batches behind their first rows."""
    for batch in batches:
        if batch.num_rows > start:
            yield batch.slice(start)
        start = max(0, start - batch.num_rows)


TABLES: dict[str, type[ParquetTable] | type[ArrowTable]] = {
    ".parquet": ParquetTable,
    ".arrow": ArrowTable,
    ".feather": ArrowTable,
    ".ipc": ArrowTable,
}
"""Endings to what reads such files."""


def num_rows(file: InputFile) -> int:
    """The rows of a file."""
    with open_bytes(file) as stream:
        return TABLES[file.ending](stream).num_rows
