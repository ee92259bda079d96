"""Rows of files of every kind, compressed or not, from any row on."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastce.corpus import source as source_module
from fastce.corpus.readers.fields import ID_NAMES, Fields
from fastce.corpus.source import RowSource
from fastce.corpus.windows import Windows

PAIRS = [(f"query {number % 7}", f'a "quoted" text, {number}') for number in range(23)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "ROWS_PER_CHUNK", 5)


def table() -> pa.Table:
    columns = list(zip(*PAIRS, strict=True))
    return pa.table({"id": range(len(PAIRS)), "query": columns[0], "document": columns[1], "when": [None, *range(22)]})


def write_lines(file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in table().to_pylist()))


def write_tabs(file: Path) -> None:
    rows = [[str(value) for value in row.values()] for row in table().to_pylist()]
    file.write_text("\n".join("\t".join(row) for row in [list(table().column_names), *rows]))


WRITERS: dict[str, Callable[[Path], Any]] = {
    ".jsonl": write_lines,
    ".ndjson": write_lines,
    ".csv": lambda file: pyarrow.csv.write_csv(table(), file),
    ".tsv": write_tabs,
    ".parquet": lambda file: pyarrow.parquet.write_table(table(), file, row_group_size=4),
    ".arrow": lambda file: pyarrow.feather.write_feather(table(), file, chunksize=4),
}


def rows_of(source: RowSource, start: int = 0) -> list[tuple[Any, ...]]:
    found = []
    for chunk in source.chunks(start):
        assert not chunk.bad
        others = chunk.others.to_pylist() if chunk.others.num_columns else [{}] * len(chunk)
        for first, second, other in zip(chunk.first, chunk.second, others, strict=True):
            found.append((first, second, *other.values()))
    return found


@pytest.mark.parametrize("start", [0, 1, 4, 5, 22, 23, 99])
@pytest.mark.parametrize("ending", WRITERS)
def test_kinds_of_files(tmp_path: Path, ending: str, start: int) -> None:
    WRITERS[ending](tmp_path / f"pairs{ending}")
    source = RowSource.of(str(tmp_path / f"pairs{ending}"), Fields(others=("id",)))
    rows = rows_of(source, start)
    assert [row[:2] for row in rows] == PAIRS[start:]
    assert [int(row[2]) for row in rows] == list(range(23))[start:]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content[:100]) + gzip.compress(content[100:]),
    ".bz2": bz2.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv"])
def test_compressed_files(tmp_path: Path, ending: str, compression: str) -> None:
    WRITERS[ending](tmp_path / f"pairs{ending}")
    file = tmp_path / f"pairs{ending}{compression}"
    file.write_bytes(COMPRESSIONS[compression]((tmp_path / f"pairs{ending}").read_bytes()))
    assert [row[:2] for row in rows_of(RowSource.of(str(file), Fields()), 3)] == PAIRS[3:]


def test_a_file_that_is_not_compressed_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl.gz").write_text('["a", "b"]\n')
    with pytest.raises(OSError, match=r"pairs\.jsonl\.gz: .*zlib"):
        rows_of(RowSource.of(str(tmp_path / "pairs.jsonl.gz"), Fields()))


def test_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "_SUCCESS", ".hidden.jsonl", "_tmp/d.jsonl", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps([name, "x"]) + "\n")
    names = [row[0] for row in rows_of(RowSource.of(str(tmp_path), Fields()))]
    assert names == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert [row[0] for row in rows_of(RowSource.of(f"{tmp_path}/[ab].jsonl", Fields()), 1)] == ["b.jsonl"]
    for name, message in ((f"{tmp_path}/x*.jsonl", "no file is called so"), (f"{tmp_path}/x.jsonl", "no file")):
        with pytest.raises(FileNotFoundError, match=message):
            RowSource.of(name, Fields())


def test_addresses_of_other_file_systems(tmp_path: Path) -> None:
    for ending in (".jsonl", ".parquet"):
        WRITERS[ending](tmp_path / f"pairs{ending}")
        with fsspec.open(f"memory://corpus/pairs{ending}", "wb") as file:
            file.write((tmp_path / f"pairs{ending}").read_bytes())
    for name in ("memory://corpus/pairs.parquet", "memory://corpus/*.jsonl"):
        assert [row[:2] for row in rows_of(RowSource.of(name, Fields()), 2)] == PAIRS[2:]
    assert len(rows_of(RowSource.of("memory://corpus", Fields()))) == 46


def test_fractions_and_booleans_are_not_made_whole_numbers(tmp_path: Path) -> None:
    rows = [{"query": "a", "document": "b", "n": value} for value in (1, 2, 3, 4, 5, 0.5, 7.0, True, None)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chunks = list(RowSource.of(str(tmp_path / "pairs.jsonl"), Fields(others=("n",))).chunks())
    assert chunks[1].others.column("n").to_pylist() == [None, 7, None, None]
    assert sorted(chunks[1].bad) == [0, 2]


def test_columns_of_other_types_than_before(tmp_path: Path) -> None:
    rows = [{"query": "a", "document": "b", "n": value} for value in (1, 2, 3, 4, 5, "six", None, [7], 8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = RowSource.of(str(tmp_path / "pairs.jsonl"), Fields(others=("n",)))
    chunks = list(source.chunks())
    assert [chunk.others.column("n").to_pylist() for chunk in chunks] == [[1, 2, 3, 4, 5], [None, None, None, 8]]
    assert {row: str(why).split("jsonl, ")[1] for row, why in chunks[1].bad.items()} == {
        0: "line 6: n: expected int64, got str 'six'",
        2: "line 8: n: expected int64, got list [7]",
    }
    assert next(source.chunks(7)).others.schema == chunks[0].others.schema, "types are those of the first rows"
    for name, kind in (("a", pa.int64()), ("b", pa.string())):
        part = pa.table({"query": ["a"], "document": ["b"], "n": pa.array([None], kind)})
        pyarrow.parquet.write_table(part, tmp_path / f"{name}.parquet")
    assert len(rows_of(RowSource.of(f"{tmp_path}/*.parquet", Fields(others=("n",))))) == 2


@pytest.mark.parametrize(
    ("name", "content", "fields", "message"),
    [
        ("a.parquet", b"PAR1 and no more", Fields(), "a.parquet: "),
        ("a.xlsx", b"", Fields(), r"expected a file ending in \.jsonl, .*\.parquet, \.arrow"),
        ("a.jsonl", b'{"query": "a"}\n', Fields(), "which two of the fields query"),
        (
            "a.csv",
            b"query,document\na,b\n",
            Fields(others=("id",)),
            "no field is called 'id', there are query, document",
        ),
        ("a.qrels", b"1 0 2 3\n", Fields(known=ID_NAMES, others=("id",)), "have no names of fields to choose from"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, fields: Fields, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_all(tmp_path / name, fields)


def read_all(file: Path, fields: Fields) -> None:
    for chunk in RowSource.of(str(file), fields, (fields.known == ID_NAMES,) * 2).chunks():
        raise next(iter(chunk.bad.values()))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), max_size=4), size=st.integers(1, 12), first=st.integers(0, 5), data=st.data())
def test_windows_have_every_row_once(
    sizes: list[int], size: int, first: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("windows")
    total = 0
    for number, rows in enumerate(sizes):
        lines = [json.dumps([str(total + row), "x"]) for row in range(rows)]
        (folder / f"{number}.jsonl").write_text("".join(line + "\n" for line in lines))
        total += rows
    if not sizes:
        return
    wanted = data.draw(st.sets(st.integers(0, 40)))
    windows = Windows(RowSource.of(str(folder), Fields()), size, first, wanted.__contains__)
    found = {window.part: window for window in windows}
    assert set(found) == {part for part in wanted if part >= first and part * size < total}
    for part, window in found.items():
        rows = list(range(part * size, min(total, (part + 1) * size)))
        assert window.first == list(map(str, rows))
        assert window.rows.tolist() == rows
        assert (window.start, window.num_rows) == (rows[0], len(rows))
    assert windows.end == (total if first * size < total else 0)


def test_a_column_of_texts_keeps_what_is_no_text_as_json(tmp_path: Path) -> None:
    rows = [{"query": "a", "document": "b", "n": value} for value in ("é", None, 7, ["é", 1.5], {"x": True})]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (chunk,) = RowSource.of(str(tmp_path / "pairs.jsonl"), Fields(others=("n",))).chunks()
    assert chunk.others.column("n").to_pylist() == ["é", None, "7", '["é", 1.5]', '{"x": true}']
    assert chunk.bad == {}


@pytest.mark.parametrize(
    ("name", "text", "fields", "are_ids"),
    [
        ("pairs.csv", "query,document\na,b\nc,d\n", Fields(), False),
        ("pairs.tsv", "query\tdocument\na\tb\nc\td", Fields(), False),
        ("pairs.csv", "a,b\nc,d", Fields(has_header=False), False),
        ("ids.tsv", "qid\tdocid\n1\t2\n1\t3\n", Fields(known=ID_NAMES, has_header=None), True),
        ("ids.tsv", "1\t2\n1\t3\n", Fields(known=ID_NAMES, has_header=None), True),
        ("pairs.jsonl", '["a", "b"]\n["c", "d"]', Fields(), False),
    ],
)
def test_a_header_is_no_row_to_come(tmp_path: Path, name: str, text: str, fields: Fields, are_ids: bool) -> None:
    (tmp_path / name).write_text(text)
    source = RowSource.of(str(tmp_path / name), fields, (are_ids, are_ids))
    assert source.count() == len(rows_of(source)) == 2
