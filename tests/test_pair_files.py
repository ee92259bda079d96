from __future__ import annotations

import codecs
import csv
import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastce.corpus.readers.tables import is_quoted
from fastce.pair_files import read_pairs

Pairs = list[tuple[str, str]]

NASTY: Pairs = [
    ('He said "hello" to her', 'a "quoted" word'),
    ('"all of it"', 'ends with a "quote"'),
    ('"', '""'),
    ('"begins', 'ends"'),
    ("a\ttab", "plain"),
    ("a line\nbreak", 'a "quote"\nand a break'),
    ("two\n\nbreaks\n", "\n"),
    ("", ""),
    ("plain", "naïve café 東京 😀"),
    ("7", "back\\slash"),
]
QUOTES: Pairs = [
    ('"Unbalanced', "plain"),
    ("a", 'said so ."'),
    ('"', '"'),
    ('""a', 'b""'),
    ('"a"', '"b" c'),
    ('x"', '"y'),
]


def write(file: Path, content: str | bytes) -> str:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def read(source: str, *arguments: Any, **options: Any) -> Pairs:
    return list(read_pairs(source, *arguments, **options))


HALVES = [{"id": "x2", "query": "berlin"}, {"query": "berlin", "url": "x"}, {"document": "a", "n": "b"}]


@pytest.mark.parametrize("half", HALVES)
def test_half_a_pair_is_none(tmp_path: Path, half: dict[str, str]) -> None:
    whole = json.dumps({"id": "x1", "query": "berlin", "document": "a city"})
    for content in (json.dumps(half), f"{whole}\n{json.dumps(half)}"):
        source = write(tmp_path / "pairs.jsonl", content)
        with pytest.raises(ValueError, match=r"line \d: which two of the fields"):
            read(source)


@pytest.mark.parametrize("content", ["a,b\nc,d\n", '"a","b"\n"c","d"\n', "left,right\nc,d\n"])
def test_a_first_line_is_no_header_by_guess(tmp_path: Path, content: str) -> None:
    source = write(tmp_path / "pairs.csv", content)
    with pytest.raises(ValueError, match=r"pairs\.csv, line 1: which two of the fields .*--text-columns .*--no-header"):
        read(source)
    first = tuple(next(csv.reader(content.splitlines())))
    assert read(source, has_header=False) == [first, ("c", "d")]
    assert read(source, first) == [("c", "d")]


@pytest.mark.parametrize(("ending", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_columns_by_name_and_by_number(tmp_path: Path, ending: str, delimiter: str) -> None:
    rows = [["id", "title", "body", "query"], ["7", "t", "b", "q"], ["8", "T", "B", "Q"]]
    source = write(tmp_path / f"pairs{ending}", "".join(delimiter.join(row) + "\r\n" for row in rows))
    assert read(source, ("query", "body")) == [("q", "b"), ("Q", "B")]
    assert read(source, ("4", "2"), has_header=False) == [("query", "title"), ("q", "t"), ("Q", "T")]
    for columns, has_header, message in (
        (("query", "text"), True, "line 1: no field is called 'text', there are id, title, body, query"),
        (("query", "1"), True, "line 1: no field is called '1'"),
        (None, False, "line 1: which two of the 4 columns"),
        (("0", "1"), False, "line 1: --text-columns: expected numbers from 1 to 4, got '0'"),
        (("1", "5"), False, "expected numbers from 1 to 4, got '5'"),
        (("query", "body"), False, "expected numbers from 1 to 4, got 'query'"),
    ):
        with pytest.raises(ValueError, match=message):
            read(source, columns, has_header=has_header)


def test_a_name_that_two_columns_have_is_none(tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.csv", "query,document,document\na,b,c\n")
    for columns in (None, ("query", "document")):
        with pytest.raises(ValueError, match="line 1: more than one field is called 'document'"):
            read(source, columns)


def test_rows_of_another_width(tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.csv", "query,document,note\na,b\nc\n")
    pairs = read_pairs(source)
    assert next(pairs) == ("a", "b")
    with pytest.raises(ValueError, match=r"pairs\.csv, line 3: fewer fields than the header has"):
        next(pairs)
    source = write(tmp_path / "pairs.tsv", "a\tb\n\nc\td\te\n")
    with pytest.raises(ValueError, match=r"pairs\.tsv, line 3: more fields than the first line has"):
        read(source, has_header=False)


@pytest.mark.parametrize("content", ['query,document\na,b\nc,"d\ne,f\n', 'query,document\na,b\n"c"d,e\n'])
def test_quotes_that_csv_does_not_have_are_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"pairs\.csv, line [34]: "):
        read(write(tmp_path / "pairs.csv", content))


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_tables_of_pandas(tmp_path: Path, quoting: Any, ending: str) -> None:
    file = tmp_path / f"pairs{ending}"
    frame = pd.DataFrame(NASTY, columns=["query", "document"])
    frame.to_csv(file, sep="\t" if ending == ".tsv" else ",", quoting=quoting, index_label="id")
    assert read(str(file)) == NASTY


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.text('ab" \n')] * 2)), st.lists(st.tuples(*[st.text('ab" \t')] * 2)))
def test_any_table_of_pandas(tmp_path_factory: pytest.TempPathFactory, breaks: Pairs, tabs: Pairs) -> None:
    for pairs in (breaks, tabs):
        file = tmp_path_factory.getbasetemp() / "pairs.tsv"
        pd.DataFrame(pairs, columns=["query", "document"]).to_csv(file, sep="\t", index=False)
        assert read(str(file)) == pairs


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.text('ab" ').filter(lambda text: not (is_quoted(text) and '""' in text[1:-1]))] * 2)))
def test_quotes_are_texts_where_no_field_needs_them(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs) -> None:
    lines = ["query\tdocument", *("\t".join(pair) for pair in [*QUOTES, *pairs])]
    assert read(write(tmp_path_factory.getbasetemp() / "raw.tsv", "\n".join(lines))) == [*QUOTES, *pairs]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("has_header", [True, False])
def test_encodings(tmp_path: Path, ending: str, encoding: str, has_header: bool) -> None:
    rows = [["query", "document"]] * has_header + [["straße", "naïve 東京 😀"], ["c", "d"]]
    if ending == ".jsonl":
        lines, has_header = [json.dumps(row, ensure_ascii=False) for row in rows[-2:]], True
    else:
        lines = [{".csv": ",", ".tsv": "\t"}[ending].join(row) for row in rows]
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    source = write(tmp_path / f"pairs{ending}", mark + "\n".join(lines).encode(encoding))
    assert read(source, has_header=has_header) == [("straße", "naïve 東京 😀"), ("c", "d")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "query,document\na,b\nna\xefve,b\n".encode("latin-1"),
            "line 3: byte 0xEF is not UTF-8; convert the file, .*iconv",
        ),
        ("query,document\na,\u201cb\u201d\n".encode("cp1252"), "line 2: byte 0x93 is not UTF-8"),
        ("query,document\na,b\n".encode("utf-16-le"), "line 1: a NUL character; UTF-16 needs a byte-order mark"),
        ("query,document\na,b\n".encode("utf-16")[:-1], "line 2: not utf-16"),
    ],
)
def test_what_is_not_encoded_so_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    for options in ({}, {"has_header": False}):
        with pytest.raises(ValueError, match=rf"pairs\.csv, {message}"):
            read(write(tmp_path / "pairs.csv", content), **options)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_standard_input_has_an_encoding_too_and_stays_open(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO('["straße", "b"]\n["c", "d"]\n'.encode(encoding)), "ascii")
    monkeypatch.setattr(sys, "stdin", stream)
    assert read("-") == [("straße", "b"), ("c", "d")]
    assert not stream.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'["a", "b"]\n["c", "\xe9"]\n'), "latin-1"))
    with pytest.raises(ValueError, match=r"-, line 2: byte 0xE9 is not UTF-8"):
        read("-")


def test_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "63"  # as the shell calls those of <(...): without an ending
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('["a", "b"]\n["c", "d"]\n',))
    writer.start()
    assert read(str(pipe)) == [("a", "b"), ("c", "d")]
    writer.join()


def test_the_order_of_an_object_means_nothing(tmp_path: Path) -> None:
    lines = [{"left": "a", "right": "b"}, {"right": "d", "left": "c"}, {"document": "f", "query": "e"}]
    source = write(tmp_path / "pairs.jsonl", "\n".join(map(json.dumps, lines)))
    assert read(source) == [("a", "b"), ("c", "d"), ("e", "f")]
    source = write(tmp_path / "pairs.jsonl", json.dumps({"id": 3, "title": "t", "query": "q", "document": "d"}))
    assert read(source) == [("q", "d")]
    assert read(source, ("query", "title")) == [("q", "t")]
    with pytest.raises(ValueError, match="line 1: no field is called 'text', there are id, title, query, document"):
        read(source, ("query", "text"))
    with pytest.raises(TypeError, match="line 1: expected an object, got list"):
        read(write(tmp_path / "pairs.jsonl", '["a", "b"]'), ("query", "text"))
    with pytest.raises(ValueError, match="JSON lines have no header"):
        read(source, has_header=False)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv"])
def test_no_lines_are_no_pairs(tmp_path: Path, ending: str) -> None:
    assert read(write(tmp_path / f"pairs{ending}", "")) == []
