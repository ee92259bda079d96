"""Files of scores, a module for each kind of file."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Protocol

import pyarrow as pa

from fastce.corpus.writers import csv, json_lines, parquet, trec


class Writer(Protocol):
    """A file of scores that is being written."""

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        ...

    def close(self) -> None:
        """Writes what is left to write."""
        ...


class Format(Protocol):
    """A kind of file: the module that writes it."""

    LABELS_IN_ONE_COLUMN: bool
    """Whether the scores of several labels are one column of lists, and not a column for each label."""
    IS_WHOLE_ONLY: bool
    """Whether a file that was not closed can't be read."""

    def misfit(self, kind: pa.DataType) -> str | None:
        """Why values of a type can't be written; None where they can."""
        ...

    def open_file(self, stream: Any, schema: pa.Schema) -> Writer:
        """Begins a file of such rows."""
        ...


class PartFormat(Format, Protocol):
    """A kind of file that a part of a job can be, since it says all that there is to say."""

    def read_file(self, path: Any, schema: pa.Schema) -> pa.Table:
        """Reads a file of such rows, which this module has written."""
        ...


PART_FORMATS: dict[str, PartFormat] = {"parquet": parquet, "jsonl": json_lines, "csv": csv}
"""Names of formats of parts to their modules; the first is what a folder has unless somebody says otherwise."""

FORMATS: dict[str, Format] = {**PART_FORMATS, "trec": trec}
"""Names of all formats to their modules."""

ENDINGS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".trec": "trec", ".run": "trec"}
"""Endings of files to formats."""


def check_kept(schema: pa.Schema, name: str) -> None:
    """Raises ValueError where a format can't say what a further field has."""
    for field in schema:
        if problem := FORMATS[name].misfit(field.type):
            raise ValueError(f"keep: {field.name}: {problem}")


def format_of(path: str) -> str | None:
    """The name of the format that a file's name says; None where it says nothing."""
    return ENDINGS.get(PurePath(path).suffix.lower())
