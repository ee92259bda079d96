"""Runs and judgements of TREC: fields between spaces, a query's id first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from fastce.corpus.readers.fields import Fields, Record
from fastce.corpus.readers.lines import check_characters


def is_trec(line: str) -> bool:
    """Whether a line is one of a run or of judgements."""
    fields = line.split()
    if len(fields) == 6:
        return fields[1].upper() == "Q0" and fields[3].isdecimal()
    return len(fields) == 4 and fields[1] in ("0", "Q0") and fields[3].lstrip("-").isdecimal()


def read_trec(lines: Iterator[str], source: str, fields: Fields) -> Iterator[Record]:
    """Ids of queries and documents; empty lines are none.

    Raises:
        ValueError: Further fields are asked for.
    """
    if fields.others or fields.pair:
        raise ValueError(f"{source}: runs and judgements of TREC have no names of fields to choose from")
    first = next(lines, "")
    width = len(first.split())
    for number, line in enumerate(chain((first,), lines), start=1):
        place = f"{source}, line {number}"
        values = line.split()
        if not values:
            continue
        try:
            check_characters(line, place)
            if len(values) != width:
                raise ValueError(f"{place}: expected {width} fields, got {len(values)}")
            yield Record([values[0], values[2]], place)
        except ValueError as error:
            yield Record(error, place)
