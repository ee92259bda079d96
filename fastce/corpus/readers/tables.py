"""Tables of text: fields between commas or tabs."""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import StringIO
from itertools import chain
from typing import Any

from fastce.corpus.readers.fields import Fields, Record
from fastce.corpus.readers.lines import check_characters

MOST_LINES = 1000
"""Lines that a text of a .tsv file may have."""

Row = tuple[list[str] | ValueError, int]
"""Fields, or why there are none, and the number of the row's last line."""


def read_commas(lines: Iterator[str], source: str, fields: Fields) -> Iterator[Record]:
    """Records of a table with commas; fields stand in quotes where they need it."""
    return read_rows(csv_rows(lines, source, ","), source, fields)


def read_tabs(lines: Iterator[str], source: str, fields: Fields) -> Iterator[Record]:
    """Records of a table with tabs; like CSV where the whole header stands in quotes, else as `unquoted_rows` says."""
    first = next(lines, "")
    lines = chain((first,), lines)
    if fields.has_header is not False and all(is_quoted(name) for name in split_at_tabs(first)):
        return read_rows(csv_rows(lines, source, "\t"), source, fields)
    return read_rows(unquoted_rows(lines), source, fields)


def read_rows(rows: Iterator[Row], source: str, fields: Fields) -> Iterator[Record]:
    """The wanted fields of each row.

    Raises:
        ValueError: The first row can't be read, or the wanted fields are not there.
    """
    first = next(rows, None)
    if first is None:
        return
    columns, number = first
    if isinstance(columns, ValueError):
        raise columns
    place = f"{source}, line {number}"
    check_characters("\t".join(columns), place)
    has_header = is_header(columns, fields)
    if has_header:
        chosen = [None if name is None else columns.index(name) for name in fields.names(columns, place)]
    else:
        chosen = fields.numbers(len(columns), place)
        rows = chain((first,), rows)
    last = max(at for at in chosen if at is not None)
    what = "header" if has_header else "first line"
    for row, number in rows:
        place = f"{source}, line {number}"
        if isinstance(row, ValueError):
            yield Record(row, place)
            continue
        try:
            check_characters("\t".join(row), place)
            if len(row) > len(columns) or len(row) <= last:
                raise ValueError(
                    f"{place}: {'more' if len(row) > len(columns) else 'fewer'} fields than the {what} has"
                )
        except ValueError as error:
            yield Record(error, place)
        else:
            values: list[Any] = [None if at is None else row[at] for at in chosen]
            yield Record(values, place)


def is_header(columns: list[str], fields: Fields) -> bool:
    """Whether the first row of a table has the names of its columns."""
    if fields.has_header is not None:
        return fields.has_header
    return all(name in columns for name in fields.pair or fields.known_pair(columns) or (None,))


def has_header_line(lines: Iterator[str], ending: str, fields: Fields) -> bool:
    """Whether the first of a file's lines is a header."""
    columns, _ = next(csv_rows(lines, "", ",") if ending == ".csv" else unquoted_rows(lines), ([], 0))
    return isinstance(columns, list) and columns != [] and is_header(columns, fields)


def csv_rows(lines: Iterator[str], source: str, delimiter: str) -> Iterator[Row]:
    """Rows of fields that stand in quotes where they need it; empty lines are none."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:  # the next line is a row again
            yield ValueError(f"{source}, line {reader.line_num}: {error}"), reader.line_num
            continue
        if row is None:
            return
        if row:
            yield row, reader.line_num


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
