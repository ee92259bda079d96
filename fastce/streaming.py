"""Files of pairs in, lines of scores out, a piece at a time: memory does not grow with the file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from fastce.inputs import check_pair
from fastce.settings import progress_bar

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

PAIRS_PER_PIECE = 4096
"""Pairs read, scored and written at once: enough to form batches of equal length."""

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")

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


def score_stream(model: CrossEncoder, source: str, target: str, batch_size: int) -> None:
    """Scores a file of pairs.

    Args:
        model: The model.
        source: A .jsonl, .csv or .tsv file, or `"-"` for JSON lines on standard input. A JSON line is a list of two
            texts or an object; an object or a row has its pair under one of `FIELD_NAMES`, or has two fields only.
        target: A .jsonl file, or `"-"` for standard output. A line for each pair, in order: `{"score": 0.5}`, or
            `{"scores": [...]}` for several labels. It is written as scoring goes.
        batch_size: Pairs per batch at most.

    Raises:
        TypeError: A line holds something else than texts; the message says which.
        ValueError: A line is no pair, or the file's kind is unknown; the message says which.
        OSError: A file can't be read or written.
    """
    if target != "-" and Path(target).exists() and source != "-" and Path(target).samefile(source):
        raise ValueError(f"{target}: it would be written over while it is read")
    pairs = read_pairs(source)
    piece = list(islice(pairs, PAIRS_PER_PIECE))  # a source that can't be read leaves the target as it was
    key = "score" if model.num_labels == 1 else "scores"
    with (
        open_text(target, "w") as lines,
        progress_bar(True, total=None, description="Scoring", unit="pairs") as progress,
    ):
        while piece:
            for scores in model.predict(piece, batch_size=batch_size, show_progress_bar=False).tolist():
                lines.write(json.dumps({key: scores}) + "\n")
            lines.flush()
            progress.update(len(piece))
            piece = list(islice(pairs, PAIRS_PER_PIECE))


def read_pairs(source: str) -> Iterator[tuple[str, str]]:
    """Reads pairs one by one; see `score_stream`."""
    kind = JSON_LINES[0] if source == "-" else Path(source).suffix.lower()
    if kind not in JSON_LINES and kind not in DELIMITERS:
        raise ValueError(f"{source}: expected a file ending in {', '.join((*JSON_LINES, *DELIMITERS))}")
    with open_text(source, "r") as lines:
        if kind in DELIMITERS:
            quoting: Literal[0, 3] = csv.QUOTE_NONE if kind == ".tsv" else csv.QUOTE_MINIMAL
            rows: csv.DictReader[str] = csv.DictReader(lines, delimiter=DELIMITERS[kind], quoting=quoting)
            csv.field_size_limit(sys.maxsize)
            for row in rows:
                place = f"{source}, line {rows.line_num}"
                if None in row:
                    raise ValueError(f"{place}: more fields than the header has")
                yield checked(choose_fields(row, place), place)
        else:
            for number, line in enumerate(lines, start=1):
                place = f"{source}, line {number}"
                if line.strip():
                    yield checked(parse_json_line(line, place), place)


def parse_json_line(line: str, place: str) -> list[Any]:
    """A list of two texts, or the two texts of an object."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not valid JSON ({error})") from error
    if isinstance(value, dict):
        return choose_fields(value, place)
    if isinstance(value, list):
        return value
    raise TypeError(f"{place}: expected a list of two texts or an object, got {type(value).__name__}")


def choose_fields(record: dict[str, Any], place: str) -> list[Any]:
    """The pair in a record: two fields of well-known names, else its only two."""
    for names in FIELD_NAMES:
        if all(name in record for name in names):
            return [record[name] for name in names]
    if len(record) == 2:
        return list(record.values())
    known = ", ".join("/".join(names) for names in FIELD_NAMES)
    raise ValueError(f"{place}: which two of the fields {', '.join(map(str, record))}? Known names are {known}")


def checked(pair: list[Any], place: str) -> tuple[str, str]:
    """The pair, if it is one."""
    check_pair(pair, place)
    return pair[0], pair[1]


def open_text(name: str, mode: str) -> Any:
    """Opens a file, or the standard stream for `"-"`, which is left open."""
    if name == "-":
        stream: TextIO = sys.stdin if mode == "r" else sys.stdout
        return nullcontext(stream)
    encoding = "utf-8-sig" if mode == "r" else "utf-8"  # spreadsheets begin files with a byte-order mark
    return open(name, mode, encoding=encoding, newline="" if mode == "r" else None)
