"""Rankings as runs of TREC, which say nothing but ids, ranks and scores."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

LABELS_IN_ONE_COLUMN = False
IS_WHOLE_ONLY = True
RUN_NAME = "fastce"


def misfit(kind: pa.DataType) -> None:
    """See `Format`."""


class TrecWriter:
    """A run that is being written.

    Args:
        stream: Where to, bytes.
        schema: The columns, with ids and ranks.
    """

    def __init__(self, stream: Any, schema: pa.Schema):
        self._stream = stream

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        columns = (table.column(name).to_pylist() for name in ("query_id", "document_id", "rank", "score"))
        for query, document, rank, score in zip(*columns, strict=True):
            self._stream.write(f"{query} Q0 {document} {rank} {score!r} {RUN_NAME}\n".encode())

    def close(self) -> None:
        """Nothing is left to write."""


open_file = TrecWriter
