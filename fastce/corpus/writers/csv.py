"""Scores in CSV files."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyarrow import csv

LABELS_IN_ONE_COLUMN = False
IS_WHOLE_ONLY = False


def misfit(kind: pa.DataType) -> str | None:
    """See `Format`."""
    return "CSV has no room for lists or objects; take Parquet or JSON lines" if pa.types.is_nested(kind) else None


class CsvWriter:
    """A CSV file that is being written.

    Args:
        stream: Where to.
        schema: The columns.
    """

    def __init__(self, stream: Any, schema: pa.Schema):
        self._stream = stream
        self._file = csv.CSVWriter(stream, schema)

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self._file.write(table)
        self._stream.flush()

    def close(self) -> None:
        """Nothing is left to write."""
        self._file.close()


open_file = CsvWriter


def read_file(path: Any, schema: pa.Schema) -> pa.Table:
    """Reads such a file."""
    types = {field.name: field.type for field in schema}
    return csv.read_csv(
        path,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    ).cast(schema)
