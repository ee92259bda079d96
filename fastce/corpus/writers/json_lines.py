"""Scores in JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

LABELS_IN_ONE_COLUMN = True
IS_WHOLE_ONLY = False


def misfit(kind: pa.DataType) -> str | None:
    """See `Format`."""
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return "JSON has no word for bytes; take Parquet" if is_bytes else None


class JsonLinesWriter:
    """A file of JSON lines that is being written.

    Args:
        stream: Where to, bytes.
        schema: The columns.
    """

    def __init__(self, stream: Any, schema: pa.Schema):
        self._stream = stream

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in table.to_pylist())
        self._stream.write(lines.encode(errors="surrogatepass"))
        self._stream.flush()

    def close(self) -> None:
        """Nothing is left to write."""


open_file = JsonLinesWriter


def read_file(path: Any, schema: pa.Schema) -> pa.Table:
    """Reads such a file."""
    with Path(path).open(encoding="utf-8") as lines:
        return pa.Table.from_pylist([json.loads(line) for line in lines], schema)
