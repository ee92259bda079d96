"""Jobs into folders: every row once, with the score of predict, whatever happened before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import PAIRS, files_of, manifest_of, rows_of, write_lines, write_pairs

import fastce
from fastce import CrossEncoder, score_corpus

Tiny = Callable[..., str]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> CrossEncoder:
    return CrossEncoder(tiny("bert"))


def test_each_row_has_the_score_of_predict(model: CrossEncoder, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl")
    found = score_corpus(model, source, tmp_path / "out", rows_per_part=50, keep=["id"])
    rows = rows_of(tmp_path / "out")
    assert [(row["row"], row["id"]) for row in rows] == [(number, number) for number in range(len(PAIRS))]
    assert np.array_equal(np.array([row["score"] for row in rows], np.float32), model.predict(PAIRS))
    assert (found.rows_read, found.rows_scored, found.rows_skipped, found.rows_before) == (120, 120, 0, 0)
    assert 0 < found.pairs_computed < 120, "pairs of a window that occur again are computed once"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("_SUCCESS", "_lock-00000", "_manifest.json", "_stats.json"),
        *("part-00000.parquet", "part-00001.parquet", "part-00002.parquet"),
    ]
    assert json.loads((tmp_path / "out" / "_stats.json").read_text())["rows_scored"] == 120
    assert (tmp_path / "out" / "_SUCCESS").read_bytes() == b""


def test_a_model_by_its_name_and_its_options(tiny: Tiny, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:5])
    expected = CrossEncoder(tiny("bert")).predict(PAIRS[:5])
    for number, named in enumerate((tiny("bert"), fastce.ModelOptions(tiny("bert")))):
        score_corpus(named, source, tmp_path / str(number))
        assert np.array_equal([np.float32(row["score"]) for row in rows_of(tmp_path / str(number))], expected)


@pytest.mark.parametrize("output_format", ["parquet", "jsonl", "csv"])
def test_formats_and_labels(tiny: Tiny, tmp_path: Path, output_format: str) -> None:
    model = CrossEncoder(tiny("bert", num_labels=3))
    source = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:7])
    score_corpus(model, source, tmp_path / "out", keep=["query"], output_format=output_format)
    expected = model.predict(PAIRS[:7])
    (file,) = (tmp_path / "out").glob("part-*")
    text = file.read_bytes() if output_format == "parquet" else file.read_text()
    if output_format == "jsonl":
        rows = [json.loads(line) for line in str(text).splitlines()]
        assert np.array_equal(np.array([row["scores"] for row in rows], np.float32), expected)
    elif output_format == "parquet":
        rows = rows_of(tmp_path / "out")
        found = [[row[f"score_LABEL_{label}"] for label in range(3)] for row in rows]
        assert np.array_equal(np.array(found, np.float32), expected)
    else:
        import csv

        rows = list(csv.DictReader(str(text).splitlines()))
        found = [[float(row[f"score_LABEL_{label}"]) for label in range(3)] for row in rows]
        assert np.array_equal(np.array(found, np.float32), expected)
    assert [row["query"] for row in rows] == [pair[0] for pair in PAIRS[:7]]


class StopError(Exception):
    pass


def stopping_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Makes the job end when it has written so many parts."""
    from fastce.corpus.folder import JobFolder

    write = JobFolder.write_part
    written = 0

    def stop(self: JobFolder, *arguments: Any) -> Any:
        nonlocal written
        if written == parts:
            raise StopError
        written += 1
        return write(self, *arguments)

    monkeypatch.setattr(JobFolder, "write_part", stop)


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_a_job_goes_on_behind_its_last_whole_part(
    model: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl")
    score_corpus(model, source, tmp_path / "whole", rows_per_part=30, keep=["id"])
    with monkeypatch.context() as patched:
        stopping_after(patched, parts)
        with pytest.raises(StopError):
            score_corpus(model, source, tmp_path / "out", rows_per_part=30, keep=["id"])
    assert len(list((tmp_path / "out").glob("part-*"))) == parts
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    found = score_corpus(model, source, tmp_path / "out", rows_per_part=30, keep=["id"])
    assert (found.rows_before, found.rows_read) == (30 * parts, 120)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    again = score_corpus(model, source, tmp_path / "out", rows_per_part=30, keep=["id"])
    assert (again.rows_before, again.rows_read, again.pairs_computed) == (120, 120, 0)


def test_another_job_in_the_folder_is_refused_with_the_difference(
    tiny: Tiny, model: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    score_corpus(model, source, out, rows_per_part=50)
    before = files_of(out)
    other = CrossEncoder(tiny("bert"), max_length=20)
    with pytest.raises(ValueError, match=r"has another job \(max_length was 64, now it is 20\); choose .* --overwrite"):
        score_corpus(other, source, out, rows_per_part=50)
    with pytest.raises(ValueError, match=r"rows_per_part was 50, now it is 60"):
        score_corpus(model, source, out, rows_per_part=60)
    with pytest.raises(ValueError, match=r"keep was \[\], now it is \['id'\]"):
        score_corpus(model, source, out, rows_per_part=50, keep=["id"])
    with pytest.raises(ValueError, match=r"model was '\w+', now it is '\w+'"):
        score_corpus(tiny("electra"), source, out, rows_per_part=50)
    with monkeypatch.context() as patched:
        patched.setattr(fastce, "__version__", "9.0")
        with pytest.raises(
            ValueError, match=r"was begun elsewhere \(fastce was '.*', now it is '9.0'\), .* --other-machines"
        ):
            score_corpus(model, source, out, rows_per_part=50)
        score_corpus(model, source, out, rows_per_part=50, other_machines=True)
    assert files_of(out) == before
    score_corpus(other, source, out, rows_per_part=50, overwrite=True)
    assert len(rows_of(out)) == len(PAIRS)
    assert files_of(out) != before


def test_a_folder_that_has_other_files_is_left_alone(model: CrossEncoder, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:3])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="has files but no manifest of a job"):
        score_corpus(model, source, tmp_path / "notes")
    assert [file.name for file in (tmp_path / "notes").iterdir() if not file.name.startswith("_")] == ["mine.txt"]


def test_input_that_has_grown_is_scored_to_its_end(model: CrossEncoder, tmp_path: Path) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:70]), tmp_path / "out"
    score_corpus(model, source, out, rows_per_part=30)
    write_pairs(source)
    found = score_corpus(model, source, out, rows_per_part=30)
    assert (found.rows_before, found.rows_read) == (60, 120)
    score_corpus(model, source, tmp_path / "whole", rows_per_part=30)
    assert files_of(out) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("changed", [0, 45, 69])
def test_input_that_has_changed_is_refused(model: CrossEncoder, tmp_path: Path, changed: int) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:70]), tmp_path / "out"
    score_corpus(model, source, out, rows_per_part=30)
    before = files_of(out)
    write_pairs(source, [*PAIRS[:changed], ("another", "pair"), *PAIRS[changed + 1 :]])
    start = changed // 30 * 30 + 1
    with pytest.raises(ValueError, match=rf"the input is not the one .*: rows {start} to {min(start + 29, 70)} differ"):
        score_corpus(model, source, out, rows_per_part=30)
    write_pairs(source, PAIRS[:65])
    with pytest.raises(ValueError, match="the input is not the one that it was begun with: rows 61 to 70 differ"):
        score_corpus(model, source, out, rows_per_part=30)
    assert files_of(out) == before


def test_a_file_that_was_touched_or_moved_is_the_same_input(model: CrossEncoder, tmp_path: Path) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    score_corpus(model, source, out, rows_per_part=30)
    moved = source.rename(tmp_path / "moved.jsonl")
    moved.touch()
    found = score_corpus(model, moved, out, rows_per_part=30)
    assert (found.rows_before, found.pairs_computed) == (120, 0)


def test_parts_that_are_gone_or_cut_are_noticed(model: CrossEncoder, tmp_path: Path) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    score_corpus(model, source, out, rows_per_part=30)
    part = out / "part-00002.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"part-00002\.parquet: is not the file that was written"):
        score_corpus(model, source, out, rows_per_part=30)
    part.unlink()
    with pytest.raises(ValueError, match=r"part-00002\.parquet: is gone"):
        score_corpus(model, source, out, rows_per_part=30)


BAD = {7: ["a", None], 33: ["only one"], 34: {"nothing": 1}}


def test_bad_rows_are_errors_or_noted(model: CrossEncoder, tmp_path: Path) -> None:
    rows: list[Any] = [BAD.get(number, list(pair)) for number, pair in enumerate(PAIRS)]
    source, out = write_lines(tmp_path / "pairs.jsonl", rows), tmp_path / "out"
    with source.open("ab") as file:
        file.write(b'["caf\xe9", "latin"]\n{broken\n')
    with pytest.raises(ValueError, match=r"pairs\.jsonl, line 8\[1\]: expected str, got None"):
        score_corpus(model, source, out, rows_per_part=30)
    found = score_corpus(model, source, out, rows_per_part=30, on_error="skip")
    assert (found.rows_read, found.rows_scored, found.rows_skipped) == (122, 117, 5)
    good = [number for number in range(120) if number not in BAD]
    assert [row["row"] for row in rows_of(out)] == good
    expected = model.predict([PAIRS[number] for number in good])
    assert np.array_equal(np.array([row["score"] for row in rows_of(out)], np.float32), expected)
    reasons = {}
    for file in sorted((out / "_errors").iterdir()):
        for line in file.read_text().splitlines():
            error = json.loads(line)
            reasons[error["row"]] = error["reason"]
    assert sorted(reasons) == [7, 33, 34, 120, 121]
    assert "line 34: expected 2 texts, got 1" in reasons[33]
    assert "byte 0xE9 is not UTF-8" in reasons[120]


def test_rows_that_were_skipped_can_be_tried_again(model: CrossEncoder, tmp_path: Path) -> None:
    rows: list[Any] = [BAD.get(number, list(pair)) for number, pair in enumerate(PAIRS)]
    source, out = write_lines(tmp_path / "pairs.jsonl", rows), tmp_path / "out"
    score_corpus(model, source, out, rows_per_part=30, on_error="skip")
    write_lines(source, [["a", None] if number == 34 else list(pair) for number, pair in enumerate(PAIRS)])
    untouched = (out / "part-00002.parquet").stat().st_mtime_ns
    assert score_corpus(model, source, out, rows_per_part=30, on_error="skip").rows_skipped == 3, "nobody asked to"
    found = score_corpus(model, source, out, rows_per_part=30, on_error="skip", retry_failed=True)
    assert (found.rows_read, found.rows_skipped, found.pairs_computed) == (120, 1, 2)
    assert (out / "part-00002.parquet").stat().st_mtime_ns == untouched
    assert [row["row"] for row in rows_of(out)] == [number for number in range(120) if number != 34]
    expected = model.predict([PAIRS[number] for number in range(120) if number != 34])
    assert np.array_equal(np.array([row["score"] for row in rows_of(out)], np.float32), expected)
    assert [part["skipped"] for part in manifest_of(out)["parts"]] == [0, 1, 0, 0]
    assert not (out / "_errors" / "part-00000.jsonl").exists()


@pytest.mark.parametrize("output_format", ["jsonl", "csv"])
def test_retried_rows_in_other_formats(model: CrossEncoder, tmp_path: Path, output_format: str) -> None:
    pairs = [{"query": a, "document": b, "note": 'a "quote", and\na break' if a == b else ""} for a, b in PAIRS[:20]]
    source = write_lines(tmp_path / "pairs.jsonl", [*pairs[:5], {}, *pairs[6:]])
    options: Any = {"rows_per_part": 30, "on_error": "skip", "keep": ["note"], "output_format": output_format}
    score_corpus(model, source, tmp_path / "out", **options)
    write_lines(source, pairs)
    score_corpus(model, source, tmp_path / "out", retry_failed=True, **options)
    score_corpus(model, source, tmp_path / "whole", **options)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_two_processes_in_one_folder(model: CrossEncoder, tmp_path: Path) -> None:
    from fastce.corpus.folder import JobFolder

    source = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:5])
    with (
        JobFolder(tmp_path / "out", "parquet").locked(0, 1),
        pytest.raises(ValueError, match="another process is writing there"),
    ):
        score_corpus(model, source, tmp_path / "out")


@pytest.mark.parametrize("grown", [False, True])
def test_a_job_that_is_killed_behind_a_part_that_is_written_again(
    model: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grown: bool
) -> None:
    from fastce.corpus.folder import JobFolder

    source, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    rows: list[Any] = list(PAIRS[:20]) if grown else [{} if number == 3 else pair for number, pair in enumerate(PAIRS)]
    write_lines(source, rows)
    options: Any = {"rows_per_part": 30, "on_error": "skip", "retry_failed": True}
    score_corpus(model, source, out, **options)
    write_lines(source, PAIRS)
    write = JobFolder.write_part

    def killed(self: JobFolder, *arguments: Any) -> Any:
        write(self, *arguments)
        raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(JobFolder, "write_part", killed)
        with pytest.raises(StopError):
            score_corpus(model, source, out, **options)
    assert not (out / "_SUCCESS").exists()
    found = score_corpus(model, source, out, **options | {"retry_failed": False})
    assert found.rows_scored == 120
    score_corpus(model, source, tmp_path / "whole", **options)
    assert files_of(out) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("left", [0, 10, 30])
def test_input_that_has_shrunk_is_refused(model: CrossEncoder, tmp_path: Path, left: int) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:60]), tmp_path / "out"
    score_corpus(model, source, out, rows_per_part=10)
    write_pairs(source, PAIRS[:left])
    with pytest.raises(ValueError, match=rf"it has {left} rows, and had 60"):
        score_corpus(model, source, out, rows_per_part=10)


def test_a_job_that_did_nothing_has_no_say(model: CrossEncoder, tmp_path: Path) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:5]), tmp_path / "out"
    with pytest.raises(ValueError, match="no field is called 'quer'"):
        score_corpus(model, source, out, columns=("quer", "document"))
    score_corpus(model, source, out, columns=("query", "document"))
    assert len(rows_of(out)) == 5


def test_what_a_killed_run_left_unfinished_is_removed(model: CrossEncoder, tmp_path: Path) -> None:
    source, out = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:8]), tmp_path / "out"
    out.mkdir()
    for number in range(2):
        (out / f".part-{number:05}.parquet.unfinished").write_text("cut")
    score_corpus(model, source, out, rows_per_part=4, shard_index=1, num_shards=2)
    assert [file.name for file in out.glob(".*")] == [".part-00000.parquet.unfinished"], "another shard's is in work"


def test_nothing_to_score(model: CrossEncoder, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "pairs.jsonl", [])
    found = score_corpus(model, source, tmp_path / "out")
    assert found.rows_read == 0
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert score_corpus(model, source, tmp_path / "out.jsonl").rows_read == 0
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_standard_input_cannot_be_resumed(model: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    text = "".join(json.dumps(pair) + "\n" for pair in PAIRS[:10])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    score_corpus(model, "-", tmp_path / "out", rows_per_part=4)
    assert len(rows_of(tmp_path / "out")) == 10
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    with pytest.raises(ValueError, match="a stream can't be read again from its beginning; save it to a file"):
        score_corpus(model, "-", tmp_path / "out", rows_per_part=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "scores.xlsx"}, r"output: expected a folder, or a file ending in .*, got '.*scores\.xlsx'"),
        ({"output": "scores.jsonl", "num_shards": 2}, "num_shards is for folders"),
        ({"output": "scores.jsonl", "on_error": "skip"}, "on_error='skip' is for folders"),
        ({"shard_index": 2, "num_shards": 2}, "shard_index: expected a number from 0 to 1, got 2"),
        ({"on_error": "ignore"}, "on_error: expected 'raise' or 'skip', got 'ignore'"),
        ({"output_format": "trec"}, "output_format: expected one of parquet, jsonl, csv, got 'trec'"),
        ({"queries": "q.tsv"}, "pairs of ids need a table of each"),
        ({"keep": ["none"]}, "no field is called 'none'"),
        ({"keep": ["row"]}, "no field is called 'row'"),
        ({"columns": "query,document"}, "columns: expected a list, got 'query,document'"),
        ({"output": "x.trec"}, "a run of TREC needs pairs of ids"),
        ({"top_k": 0}, "top_k: expected a positive whole number, got 0"),
        ({"rescore": "int8"}, "rescore: needs top_k"),
        ({"devices": ["cpu"], "workers": 2}, "workers: 2, but there are 1 devices"),
    ],
)
def test_arguments_that_do_not_go_together(
    model: CrossEncoder, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    options = {"pairs": write_pairs(tmp_path / "pairs.jsonl", PAIRS[:3]), "output": "out"} | changes
    options["output"] = tmp_path / options["output"]
    with pytest.raises(ValueError, match=message):
        score_corpus(model, **options)
