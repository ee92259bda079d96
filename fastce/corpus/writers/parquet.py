"""Scores in Parquet files."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyarrow import parquet

LABELS_IN_ONE_COLUMN = False
IS_WHOLE_ONLY = True


def misfit(kind: pa.DataType) -> None:
    """See `Format`."""


class ParquetWriter:
    """A Parquet file that is being written.

    Args:
        stream: Where to.
        schema: The columns.
    """

    def __init__(self, stream: Any, schema: pa.Schema):
        self._file = parquet.ParquetWriter(stream, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self._file.write_table(table)

    def close(self) -> None:
        """Writes the end of the file."""
        self._file.close()


open_file = ParquetWriter


def read_file(path: Any, schema: pa.Schema) -> pa.Table:
    """Reads such a file."""
    return parquet.read_table(path, schema=schema)
