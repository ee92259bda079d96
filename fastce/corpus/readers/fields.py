"""Which fields of a record are wanted, and where they are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Names = tuple[str, str]

TEXT_NAMES: tuple[Names, ...] = (
    ("query", "document"),
    ("query", "passage"),
    ("query", "text"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
"""Names under which a record's pair of texts is found, tried in this order."""

ID_NAMES: tuple[Names, ...] = (
    ("query_id", "document_id"),
    ("query_id", "doc_id"),
    ("query_id", "passage_id"),
    ("query-id", "corpus-id"),
    ("query_id", "corpus_id"),
    ("qid", "docid"),
    ("qid", "docno"),
    ("qid", "pid"),
)
"""Names under which a record's pair of ids is found."""

TABLE_NAMES: tuple[Names, ...] = tuple(
    (name, text)
    for name in ("_id", "id", "query_id", "qid", "document_id", "doc_id", "docid", "docno", "passage_id", "pid")
    for text in ("text", "query", "document", "passage", "contents", "body")
)
"""Names under which a record's id and text are found."""


class Record(NamedTuple):
    """What a line or a row holds.

    Attributes:
        values: The wanted fields, or why there are none.
        place: Where it is, for messages.
    """

    values: list[Any] | Exception
    place: str


@dataclass(frozen=True)
class Fields:
    """The fields that are wanted of every record.

    Attributes:
        pair: The names of the first two; None takes the first of `known` that are both there, or an object's only two,
            or those of a table without a header that has no others.
        known: See `pair`.
        others: Names of further ones.
        are_optional: Whether these may be missing, and are None then.
        option: What says the names on the command line.
        has_header: Whether the first row of a table has the names; without, they are numbers from 1 up. None: where
            they are known names.
    """

    pair: Names | None = None
    known: tuple[Names, ...] = TEXT_NAMES
    others: tuple[str, ...] = ()
    are_optional: bool = False
    option: str = "--text-columns"
    has_header: bool | None = True

    def known_pair(self, names: Sequence[str] | Mapping[str, Any]) -> Names | None:
        """The first of the known names that are both among names."""
        return next((known for known in self.known if all(name in names for name in known)), None)

    def names(self, there: Sequence[str], place: str, default: Names | None = None) -> list[str | None]:
        """The names of the wanted fields among those that are there; None for one that may be missing and is.

        Raises:
            ValueError: Nobody knows which, or one of them is missing or occurs twice.
        """
        pair = self.pair or self.known_pair(there) or default
        if pair is None:
            known = ", ".join("/".join(names) for names in self.known[:8])
            raise ValueError(
                f"{place}: which two of the fields {', '.join(there)}? Known names are {known}; "
                f"{self.option} says others, --no-header that a table's first line is a pair"
            )
        for name in (*pair, *(() if self.are_optional else self.others)):
            if there.count(name) != 1:
                problem = "more than one field" if name in there else "no field"
                raise ValueError(f"{place}: {problem} is called {name!r}, there are {', '.join(there)}")
        return [*pair, *(name if name in there else None for name in self.others)]

    def numbers(self, width: int, place: str) -> list[int | None]:
        """Where the wanted fields are in a table without a header, from 0 up.

        Raises:
            ValueError: Nobody knows where, or there are fewer columns.
        """
        if self.pair is None and (width < 2 or (width > 2 and self.has_header is False)):
            raise ValueError(f"{place}: which two of the {width} columns? Say their numbers, such as {self.option} 1,2")
        others = () if self.are_optional else self.others
        for name in (*(self.pair or ()), *others):
            if not name.isdecimal() or not 1 <= int(name) <= width:
                option = self.option if name in (self.pair or ()) else "--keep"
                raise ValueError(f"{place}: {option}: expected numbers from 1 to {width}, got {name!r}")
        return [
            *(int(name) - 1 for name in (*(self.pair or ("1", "2")), *others)),
            *[None] * (len(self.others) - len(others)),
        ]
