"""Files of pairs: .jsonl, .csv and .tsv, in any encoding that says what it is, read a line at a time."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from io import BufferedReader, StringIO, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, cast

from fastce.inputs import check_pair

FIELD_NAMES = (
    ("query", "document"),
    ("query", "passage"),
    ("query", "text"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
"""Names under which a record's pair is found, tried in this order."""

ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"": "utf-8-sig",
}
"""What a file begins with to its encoding, tried in this order."""

MOST_LINES = 1000
"""Lines that a text of a .tsv file may have."""

Names = tuple[str, str]


def read_pairs(
    source: str, text_columns: Names | None = None, *, has_header: bool = True
) -> Generator[tuple[str, str], None, None]:
    """Reads pairs one by one.

    Args:
        source: A .jsonl, .csv or .tsv file, or `"-"` for JSON lines on standard input; a name without an ending, such
            as a pipe's, is JSON lines too. A JSON line is a list of two texts, or an object.
        text_columns: The two fields of objects or columns of tables that are the pair; without a header, their numbers
            from 1 up. None takes those of `FIELD_NAMES`, or an object's only two, or a table's only two where it has no
            header.
        has_header: Whether the first row of a .csv or .tsv file has the columns' names.

    Raises:
        TypeError: A line holds something else than texts; the message says which.
        ValueError: A line is no pair, or is not encoded as it should be, or the columns or the file's kind are unknown;
            the message says which.
        OSError: The file can't be read.
    """
    ending = Path(source).suffix.lower()
    if ending not in TABLES and ending not in JSON_LINES:
        raise ValueError(f"{source}: expected a file ending in {', '.join(filter(None, (*JSON_LINES, *TABLES)))}")
    if ending not in TABLES and not has_header:
        raise ValueError(f"{source}: JSON lines have no header; --no-header is for {' and '.join(TABLES)} files")
    with open_lines(source) as lines:
        if ending in TABLES:
            records = read_table(TABLES[ending](lines, source, has_header), source, text_columns, has_header)
        else:
            records = read_json_lines(lines, source, text_columns)
        for record, place in records:
            check_pair(record, place)
            yield record[0], record[1]


def open_standard_input() -> Any:
    """Standard input as bytes, which stays open; or what somebody has put in its place."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:  # it has no file
        return nullcontext(sys.stdin.buffer)


@contextmanager
def open_lines(source: str) -> Iterator[Iterator[str]]:
    """Opens a file, or standard input for `"-"`, which stays open, and gives its lines with their ends.

    They are UTF-8 unless a byte-order mark says otherwise.

    Raises:
        ValueError: A line is not encoded so; the message says which.
        OSError: The file can't be read.
    """
    # Of standard input a file of our own: Python's is locked at the end where another thread still waits for a line.
    with open_standard_input() if source == "-" else open(source, "rb") as stream:
        buffered = BufferedReader(cast(Any, stream))
        start = buffered.peek(4)
        encoding = next(name for mark, name in ENCODINGS.items() if start.startswith(mark))
        text = TextIOWrapper(buffered, encoding, errors="surrogateescape", newline="")
        try:
            yield checked_lines(text, source)
        finally:
            text.detach()
            buffered.detach()


def checked_lines(text: TextIOWrapper, source: str) -> Iterator[str]:
    """The lines of a file that is read with surrogates in place of what its encoding does not have."""
    number = 0
    try:
        for number, line in enumerate(text, start=1):
            line.encode()
            if "\0" in line:
                raise ValueError(f"{source}, line {number}: a NUL character; UTF-16 needs a byte-order mark")
            yield line
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) & 0xFF
        remedy = "convert the file, for example with iconv -f latin1 -t utf-8"
        raise ValueError(f"{source}, line {number}: byte 0x{byte:02X} is not UTF-8; {remedy}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}, line {number + 1}: not {text.encoding} ({error.reason})") from None


Record = tuple[list[Any], str]
"""What a line holds, and its place for error messages."""


def read_json_lines(lines: Iterator[str], source: str, text_columns: Names | None) -> Iterator[Record]:
    """Lists and objects, a line each."""
    orders: dict[frozenset[str], Names] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{source}, line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place}: not valid JSON ({error})") from error
        if isinstance(value, dict):
            names = text_columns or known_names(value)
            if names is None and len(value) == 2:  # an object's order means nothing, but the first one's is as good
                names = orders.setdefault(frozenset(value), cast(Names, tuple(value)))
            yield [value[column] for column in checked_names(names, list(value), place)], place
        elif isinstance(value, list) and text_columns is None:
            yield value, place
        else:
            expected = "a list of two texts or an object" if text_columns is None else "an object"
            raise TypeError(f"{place}: expected {expected}, got {type(value).__name__}")


Row = tuple[list[str], int]
"""Fields, and the number of the row's last line."""


def read_table(rows: Iterator[Row], source: str, text_columns: Names | None, has_header: bool) -> Iterator[Record]:
    """The two chosen columns of each row."""
    first = next(rows, None)
    if first is None:
        return
    columns, number = first
    place = f"{source}, line {number}"
    if has_header:
        chosen = [columns.index(name) for name in checked_names(text_columns or known_names(columns), columns, place)]
    else:
        chosen = column_numbers(text_columns, len(columns), place)
        rows = chain((first,), rows)
    what = "header" if has_header else "first line"
    for row, number in rows:
        place = f"{source}, line {number}"
        if len(row) > len(columns) or len(row) <= max(chosen):
            raise ValueError(f"{place}: {'more' if len(row) > len(columns) else 'fewer'} fields than the {what} has")
        yield [row[column] for column in chosen], place


def known_names(names: Sequence[str] | dict[str, Any]) -> Names | None:
    """The first of `FIELD_NAMES` that are both among names."""
    return next((known for known in FIELD_NAMES if all(name in names for name in known)), None)


def checked_names(chosen: Names | None, names: list[str], place: str) -> Names:
    """The names of the pair's fields.

    Raises:
        ValueError: Nobody knows which, or one of them is missing or occurs twice.
    """
    if chosen is None:
        known = ", ".join("/".join(pair) for pair in FIELD_NAMES)
        raise ValueError(
            f"{place}: which two of the fields {', '.join(names)}? Known names are {known}; "
            "--text-columns says others, --no-header that a table's first line is a pair"
        )
    for name in chosen:
        if names.count(name) != 1:
            problem = "more than one field" if name in names else "no field"
            raise ValueError(f"{place}: {problem} is called {name!r}, there are {', '.join(names)}")
    return chosen


def column_numbers(chosen: Names | None, number: int, place: str) -> list[int]:
    """Where the pair's fields are in a table without a header, from 0 up.

    Raises:
        ValueError: Nobody knows where, or there are fewer columns.
    """
    if chosen is None and number != 2:
        raise ValueError(f"{place}: which two of the {number} columns? Say their numbers, such as --text-columns 1,2")
    for text in chosen or ():
        if not text.isdecimal() or not 1 <= int(text) <= number:
            raise ValueError(f"{place}: --text-columns: expected numbers from 1 to {number}, got {text!r}")
    return [int(text) - 1 for text in chosen or ("1", "2")]


def comma_rows(lines: Iterator[str], source: str, has_header: bool) -> Iterator[Row]:
    """Rows of fields between commas."""
    return csv_rows(lines, source, ",")


def tab_rows(lines: Iterator[str], source: str, has_header: bool) -> Iterator[Row]:
    """Rows of fields between tabs; like CSV where the whole header stands in quotes, else as `unquoted_rows` says."""
    first = next(lines, "")
    lines = chain((first,), lines)
    if has_header and all(is_quoted(name) for name in split_at_tabs(first)):
        return csv_rows(lines, source, "\t")
    return unquoted_rows(lines)


def csv_rows(lines: Iterator[str], source: str, delimiter: str) -> Iterator[Row]:
    """Rows of fields that stand in quotes where they need it; empty lines are none."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield row, reader.line_num
    except csv.Error as error:
        raise ValueError(f"{source}, line {reader.line_num}: {error}") from error


def unquoted_rows(lines: Iterator[str]) -> Iterator[Row]:
    """Rows of fields between tabs; empty lines are none.

    Most such files know no quotes: one in a text is a quote. Others are written like CSV, which shows: quotes in a
    quoted field are doubled, or it holds a tab or a line break, and the line alone has not as many fields as the first.
    """
    ahead: deque[str] = deque()

    def peek(index: int) -> str | None:
        while len(ahead) <= index:
            line = next(lines, None)
            if line is None:
                return None
            ahead.append(line)
        return ahead[index]

    number = width = 0
    while (line := peek(0)) is not None:
        ahead.popleft()
        number += 1
        row = split_at_tabs(line)
        if row == [""]:
            continue
        width = width or len(row)
        if len(row) != width or any(field.startswith('"') and not is_quoted(field) for field in row):
            row, further = like_csv(line, peek, width) or (row, 0)
            for _ in range(further):
                ahead.popleft()
            number += further
        else:
            row = [unquoted(field) for field in row]
        yield row, number


def like_csv(line: str, peek: Callable[[int], str | None], width: int) -> tuple[list[str], int] | None:
    """The row that begins with a line, if it is written like CSV.

    A line with all its fields, followed by another such, is a row of its own: so a text of more than one line must not
    have a tab in each.

    Args:
        line: The line.
        peek: Gives the lines that follow, by their number from 0 up.
        width: How many fields a row has.

    Returns:
        The row and how many further lines it takes; None where there is no such row.
    """
    text = line
    for further in range(MOST_LINES):
        if text.count('"') % 2 == 0:
            with suppress(csv.Error):
                rows = list(csv.reader(StringIO(text, newline=""), delimiter="\t", strict=True))
                if len(rows) == 1 and len(rows[0]) == width:
                    return rows[0], further
        following = peek(further)
        if following is None or len(split_at_tabs(line)) == len(split_at_tabs(following)) == width:
            return None
        text += following
    return None


def split_at_tabs(line: str) -> list[str]:
    """The fields of a line, as they are."""
    return line.rstrip("\r\n").split("\t")


def is_quoted(field: str) -> bool:
    """Whether a field stands in quotes, and those within are doubled."""
    return len(field) > 1 and field[0] == field[-1] == '"' and '"' not in field[1:-1].replace('""', "")


def unquoted(field: str) -> str:
    """The text of a field, where doubled quotes show that it stands in quotes."""
    return field[1:-1].replace('""', '"') if is_quoted(field) and '""' in field[1:-1] else field


TABLES: dict[str, Callable[[Iterator[str], str, bool], Iterator[Row]]] = {".csv": comma_rows, ".tsv": tab_rows}
"""Endings of tables to what makes rows of lines; it is told the file's name and whether there is a header."""

JSON_LINES = (".jsonl", ".ndjson", "")
