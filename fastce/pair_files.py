"""Pairs of texts in a file, one by one."""

from __future__ import annotations

from collections.abc import Generator

from fastce.corpus.readers.fields import Fields, Names
from fastce.corpus.readers.files import open_bytes


def read_pairs(
    source: str, text_columns: Names | None = None, *, has_header: bool = True
) -> Generator[tuple[str, str], None, None]:
    """Reads pairs one by one.

    Args:
        source: A file of pairs, or several; see `fastce.score_corpus`.
        text_columns: The two fields of objects or columns of tables that are the pair; without a header, their numbers
            from 1 up. None takes well-known names, or an object's only two, or a table's only two where it has no
            header.
        has_header: Whether the first row of a .csv or .tsv file has the columns' names.

    Raises:
        TypeError: A row holds something else than texts; the message says which.
        ValueError: A row is no pair, or is not encoded as it should be, or the columns or the file's kind are unknown;
            the message says which.
        OSError: The file can't be read.
    """
    from fastce.corpus.source import RowSource

    for chunk in RowSource.of(source, Fields(text_columns, has_header=has_header)).chunks():
        for row, pair in enumerate(zip(chunk.first, chunk.second, strict=True)):
            if row in chunk.bad:
                raise chunk.bad[row]
            yield pair


def read_lines(source: str) -> list[str]:
    """The lines of a text file that are not empty, without their ends.

    Raises:
        ValueError: A line is not encoded as it should be; the message says which.
        OSError: The file can't be read.
    """
    from fastce.corpus.readers.files import input_files
    from fastce.corpus.readers.lines import check_characters, text_lines

    found = []
    (file,) = input_files(source, ())
    with open_bytes(file) as stream, text_lines(stream, source) as lines:
        for number, line in enumerate(lines, start=1):
            check_characters(line, f"{source}, line {number}")
            if line.strip():
                found.append(line.rstrip("\r\n"))
    return found
