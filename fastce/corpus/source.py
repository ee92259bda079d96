"""Rows of files: pairs of texts, pairs of ids, or ids with their texts, a few thousand at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import IO, Any, NamedTuple

import pyarrow as pa

from fastce.checks import describe
from fastce.corpus.readers.arrow import TABLES, num_rows
from fastce.corpus.readers.fields import Fields, Record
from fastce.corpus.readers.files import InputFile, input_files, open_bytes
from fastce.corpus.readers.json_lines import read_json_lines
from fastce.corpus.readers.lines import text_lines
from fastce.corpus.readers.tables import has_header_line, read_commas, read_tabs
from fastce.corpus.readers.trec import is_trec, read_trec

LINES: dict[str, Callable[[Iterator[str], str, Fields], Iterator[Record]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    "": read_json_lines,
    ".csv": read_commas,
    ".tsv": read_tabs,
}
"""Endings of text files to what makes records of lines."""

TREC_ENDINGS = (".trec", ".run", ".qrels", ".qrel", ".txt")
"""Of files whose lines have ids between spaces."""

ROWS_PER_CHUNK = 4096


class Chunk(NamedTuple):
    """Some rows.

    Attributes:
        first: The first field of each, a text or an id; None of bad rows.
        second: The second.
        others: The further fields.
        bad: Rows, counted within the chunk, that can't be used, to the reasons.
    """

    first: list[Any]
    second: list[Any]
    others: pa.Table
    bad: dict[int, Exception]

    def __len__(self) -> int:
        return len(self.first)

    def slice(self, start: int, stop: int | None = None) -> Chunk:
        """Some of the rows."""
        bad = {
            row - start: why for row, why in self.bad.items() if start <= row < (len(self) if stop is None else stop)
        }
        others = self.others.slice(start, None if stop is None else stop - start)
        return Chunk(self.first[start:stop], self.second[start:stop], others, bad)


@dataclass(frozen=True)
class RowSource:
    """Rows of files of any kinds, one file after the other.

    Attributes:
        name: What the caller called them, for messages.
        files: The files.
        fields: Which fields are wanted.
        are_ids: Which of the first two are ids, which may be whole numbers too.
        schema: The types of the further fields; None: those that they have in the first rows.
    """

    name: str
    files: tuple[InputFile, ...]
    fields: Fields
    are_ids: tuple[bool, bool]
    schema: pa.Schema | None = None

    @classmethod
    def of(cls, name: str, fields: Fields, are_ids: tuple[bool, bool] = (False, False)) -> RowSource:
        """The files that a name means; see `input_files`.

        Raises:
            FileNotFoundError: There are none.
            ValueError: A file is of no kind that can be read.
        """
        known = (*LINES, *TABLES, *(TREC_ENDINGS if all(are_ids) else ()))
        files = input_files(name, tuple(filter(None, known)))
        for file in files:
            if file.ending not in known:
                raise ValueError(f"{file.path}: expected a file ending in {', '.join(filter(None, known))}")
        return cls(name, tuple(files), fields, are_ids)

    @property
    def is_stream(self) -> bool:
        """Whether it can be read but once."""
        return any(file.size is None for file in self.files)

    def count(self) -> int | None:
        """About how many rows there are, at the cost of reading text files; None where they can't be read twice."""
        if self.is_stream or any("://" in file.path for file in self.files):
            return None
        return sum(num_rows(file) if file.ending in TABLES else self._num_records(file) for file in self.files)

    def _num_records(self, file: InputFile) -> int:
        """The lines of a file without its header; more than rows where a row takes several lines."""
        if file.ending not in (".csv", ".tsv"):
            return num_lines(file)
        with open_bytes(file) as stream, text_lines(stream, file.path) as lines:
            return num_lines(file) - has_header_line(lines, file.ending, self.fields)

    def chunks(self, start: int = 0) -> Iterator[Chunk]:
        """The rows from one on; the further fields have the types that they have in the first rows of all, or `schema`.

        Raises:
            ValueError: The wanted fields are not there, or a file can't be read.
            OSError: A file can't be read.
        """
        schema = self.schema
        if schema is None and start > 0:
            schema = next((chunk.others.schema for chunk in self.chunks()), None)
        for file in self.files:
            with named_errors(file), open_bytes(file) as stream, self._rows(file, stream) as rows:
                start -= rows.skip(start)
                for chunk in rows.chunks(schema):
                    schema = chunk.others.schema
                    yield chunk

    @contextmanager
    def _rows(self, file: InputFile, stream: IO[bytes]) -> Iterator[LineRows | TableRows]:
        if file.ending in TABLES:
            yield TableRows(self, file, stream)
            return
        with text_lines(stream, file.path) as lines:
            yield LineRows(self, file, lines)

    def checked(
        self,
        first: list[Any],
        second: list[Any],
        others: pa.Table,
        bad: dict[int, Exception],
        place: Callable[[int], str],
    ) -> Chunk:
        """A chunk of rows whose first two fields are what they should be, or that are bad."""
        columns = []
        for position, (values, is_id) in enumerate(zip((first, second), self.are_ids, strict=True)):
            if is_id:
                values = [str(value) if type(value) is int else value for value in values]
            for row, value in enumerate(values):
                if type(value) is not str and row not in bad:
                    expected = "an id" if is_id else "str"
                    bad[row] = TypeError(f"{place(row)}[{position}]: expected {expected}, got {describe(value)}")
            columns.append(values)
        return Chunk(columns[0], columns[1], others, bad)


@contextmanager
def named_errors(file: InputFile) -> Iterator[None]:
    """Puts the file's name before what is wrong with its bytes."""
    try:
        yield
    except OSError as error:
        if error.errno is None and file.path not in str(error):
            raise OSError(f"{file.path}: {error}") from error
        raise


def num_lines(file: InputFile) -> int:
    """The lines of a file; the last one may be without an end."""
    count, last = 0, b"\n"
    with open_bytes(file) as stream:
        for piece in iter(partial(stream.read, 1 << 20), b""):
            count, last = count + piece.count(b"\n"), piece[-1:]
    return count + (last != b"\n")


class LineRows:
    """The rows of a text file.

    Args:
        source: What it belongs to.
        file: The file.
        lines: Its lines.
    """

    def __init__(self, source: RowSource, file: InputFile, lines: Iterator[str]):
        first = next(lines, "")
        lines = chain((first,), lines) if first else lines
        read = LINES.get(file.ending, read_trec)
        if all(source.are_ids) and source.fields.pair is None and file.ending != ".csv" and is_trec(first):
            read = read_trec
        self._records = read(lines, file.path, source.fields)
        self._source = source

    def skip(self, number: int) -> int:
        """Passes over rows, and returns how many there were."""
        return sum(1 for _ in islice(self._records, number))

    def chunks(self, schema: pa.Schema | None) -> Iterator[Chunk]:
        """The rows that are left; `schema` has the types of the further fields, where known."""
        names = self._source.fields.others
        while piece := list(islice(self._records, ROWS_PER_CHUNK)):
            bad = {row: record.values for row, record in enumerate(piece) if isinstance(record.values, Exception)}
            nothing: list[Any] = [None] * (2 + len(names))
            values = [nothing if row in bad else record.values for row, record in enumerate(piece)]
            first, second, *others = map(list, zip(*values, strict=True))
            table, unfit = table_of(dict(zip(names, others, strict=True)), schema, len(piece))
            schema = table.schema
            places = [record.place for record in piece]
            bad |= {row: ValueError(f"{places[row]}: {why}") for row, why in unfit.items()}
            yield self._source.checked(first, second, table, bad, places.__getitem__)


class TableRows:
    """The rows of a file that Arrow knows.

    Args:
        source: What it belongs to.
        file: The file.
        stream: Its bytes.

    Raises:
        ValueError: It is no such file, or the wanted fields are not there.
    """

    def __init__(self, source: RowSource, file: InputFile, stream: IO[bytes]):
        try:
            self._table = TABLES[file.ending](stream)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{file.path}: {error}") from error
        self._source, self._path = source, file.path
        self._names = source.fields.names(self._table.schema.names, file.path)
        self._start = 0

    def skip(self, number: int) -> int:
        """Passes over rows, and returns how many there were."""
        self._start = min(number, self._table.num_rows)
        return self._start

    def chunks(self, schema: pa.Schema | None) -> Iterator[Chunk]:
        """The rows that are left; `schema` has the types of the further fields, where known."""
        there = list(dict.fromkeys(name for name in self._names if name is not None))
        row = self._start
        for batch in self._table.batches(there, row):
            first, second, *others = (
                pa.nulls(batch.num_rows, pa.string()) if name is None else batch.column(there.index(name))
                for name in self._names
            )
            table = pa.table(others, names=list(self._source.fields.others))
            try:
                table = table if schema is None else table.cast(schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                raise ValueError(f"{self._path}: its fields are of other types than before ({error})") from error

            def place(number: int, row: int = row) -> str:
                return f"{self._path}, row {row + number + 1}"

            yield self._source.checked(first.to_pylist(), second.to_pylist(), table, {}, place)
            row += batch.num_rows


def table_of(columns: dict[str, list[Any]], schema: pa.Schema | None, num_rows: int) -> tuple[pa.Table, dict[int, str]]:
    """Columns of Python's values as a table.

    Args:
        columns: The values.
        schema: Their types; None finds them.
        num_rows: How many there are of each.

    Returns:
        The table, and the rows whose values are of other types, with what is wrong; they have none in it. A column of
        texts has room for all: what is no text stands there as in JSON.
    """
    unfit: dict[int, str] = {}
    arrays = {}
    for name, values in columns.items():
        kind = None if schema is None else schema.field(name).type
        try:
            array = array_of(values, kind)
        except MISFITS:
            kind = kind or type_of(values)
            fit = []
            for row, value in enumerate(values):
                try:
                    fit.append(array_of([in_words(value, kind)], kind)[0].as_py())
                except MISFITS:
                    unfit[row] = f"{name}: expected {kind}, got {describe(value)}"
                    fit.append(None)
            array = pa.array(fit, kind)
        arrays[name] = array.cast(pa.string()) if array.type == pa.null() else array
    if not arrays:  # a table without columns has no rows
        return pa.table({"": pa.nulls(num_rows)}).select([]), unfit
    return pa.table(arrays), unfit


def in_words(value: Any, kind: pa.DataType) -> Any:
    """A value; for a column of texts, one that is no text as JSON says it."""
    is_odd = pa.types.is_string(kind) and value is not None and not isinstance(value, str)
    return json.dumps(value, ensure_ascii=False, default=str) if is_odd else value


MISFITS = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError)
"""What Arrow raises of values that don't fit."""


def array_of(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Values as an array; of a type, without losing what they say, which Arrow would do to fractions and booleans.

    Raises:
        ArrowInvalid: A value is of another type, or one of `MISFITS`.
    """
    if kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return pa.array(values, kind)
    array = pa.array(values)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type):
        return array.cast(kind, safe=True)
    raise pa.ArrowInvalid(f"{array.type} is not {kind}")


def type_of(values: list[Any]) -> pa.DataType:
    """The type of the first value that has one."""
    for value in values:
        with suppress(*MISFITS):
            if (kind := pa.array([value]).type) != pa.null():
                return kind
    return pa.string()


def with_title(text: Any, title: Any) -> Any:
    """A document's text behind its title, as BEIR joins them."""
    return f"{title} {text}".strip() if isinstance(title, str) and isinstance(text, str) else text
