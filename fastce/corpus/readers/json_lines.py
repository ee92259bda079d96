"""JSON lines: a list of two texts or an object on each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from fastce.corpus.readers.fields import ID_NAMES, TABLE_NAMES, TEXT_NAMES, Fields, Names, Record
from fastce.corpus.readers.lines import check_characters

TELLING = frozenset(name for pair in (*TEXT_NAMES, *ID_NAMES, *TABLE_NAMES) for name in pair)
"""Names that say what a field is: one of them alone beside another is half a pair."""


def read_json_lines(lines: Iterator[str], source: str, fields: Fields) -> Iterator[Record]:
    """Records of JSON lines; empty lines are none.

    Raises:
        ValueError: The fields are said to have a header or none.
    """
    if fields.has_header is False:
        raise ValueError(f"{source}: JSON lines have no header; --no-header is for .csv and .tsv files")
    orders: dict[frozenset[str], Names] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{source}, line {number}"
            try:
                check_characters(line, place)
                yield Record(wanted(parsed(line, place), fields, orders, place), place)
            except (ValueError, TypeError) as error:
                yield Record(error, place)


def parsed(line: str, place: str) -> Any:
    """What a line says.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not valid JSON ({error})") from error


def wanted(value: Any, fields: Fields, orders: dict[frozenset[str], Names], place: str) -> list[Any]:
    """The wanted fields of what a line says.

    Args:
        value: A list or an object.
        fields: Which are wanted.
        orders: Of objects with two fields of unknown names, which one is first: their order means nothing, but that of
            the first object is as good.
        place: Where it is.
    """
    if isinstance(value, dict):
        default = None
        if len(value) == 2 and not TELLING.intersection(value):
            default = orders.setdefault(frozenset(value), cast(Names, tuple(value)))
        return [None if name is None else value[name] for name in fields.names(list(value), place, default)]
    if isinstance(value, list) and fields.pair is None and (not fields.others or fields.are_optional):
        if len(value) != 2:
            raise ValueError(f"{place}: expected 2 texts, got {len(value)}")
        return value + [None] * len(fields.others)
    expected = "an object" if fields.pair or fields.others else "a list of two texts or an object"
    raise TypeError(f"{place}: expected {expected}, got {type(value).__name__}")
