"""What a job refuses or keeps: other activations, places that it reads from, fields of other types."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from corpora import PAIRS, rows_of, write_lines, write_pairs

from fastce import CrossEncoder, score_corpus
from fastce.corpus.scorer import Advance, LocalScorer, Scorer, ScoringOptions

Tiny = Callable[..., str]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> CrossEncoder:
    return CrossEncoder(tiny("bert"))


class Scaled(torch.nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def times(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x * factor


def test_an_activation_is_known_by_what_it_does(tiny: Tiny, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:5])
    for number, (one, same, other) in enumerate(
        (
            (Scaled(1.0), Scaled(1.0), Scaled(2.0)),
            (torch.nn.Sequential(Scaled(1.0)), torch.nn.Sequential(Scaled(1.0)), torch.nn.Sequential(Scaled(2.0))),
            (times(2.0), times(2.0), times(3.0)),
            (torch.tanh, torch.tanh, torch.sigmoid),
            (partial(torch.mul, other=2.0), partial(torch.mul, other=2.0), partial(torch.mul, other=3.0)),
            (torch.nn.Sigmoid(), torch.nn.Sigmoid(), torch.nn.Tanh()),
        )
    ):
        out = tmp_path / str(number)
        score_corpus(CrossEncoder(tiny("bert"), activation_fn=one), source, out)
        score_corpus(CrossEncoder(tiny("bert"), activation_fn=same), source, out)
        with pytest.raises(ValueError, match="activation was"):
            score_corpus(CrossEncoder(tiny("bert"), activation_fn=other), source, out)


def test_what_is_read_is_not_written_over(model: CrossEncoder, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    source = write_pairs(tmp_path / "data" / "part-00000.jsonl", PAIRS[:5])
    for output, message in (
        (source, "it would be written over while it is read"),
        (tmp_path / "data", "is in the folder that is read|has what is read"),
        ("memory://bucket/out", "got the address"),
    ):
        with pytest.raises(ValueError, match=message):
            score_corpus(model, source, output, overwrite=True)
    with pytest.raises(ValueError, match="is in the folder that is read"):
        score_corpus(model, tmp_path / "data", tmp_path / "data" / "scores")
    texts = write_lines(tmp_path / "docs.jsonl", [{"_id": "1", "text": "a"}])
    ids = tmp_path / "ids.tsv"
    ids.write_text("1\t1\n")
    with pytest.raises(ValueError, match="it would be written over while it is read"):
        score_corpus(model, ids, texts, queries=texts, documents=texts)
    assert json.loads(texts.read_text())["text"] == "a"
    assert len(source.read_text().splitlines()) == 5


def test_rows_that_are_appended_do_not_change_types(model: CrossEncoder, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"query": a, "document": b, "n": number} for number, (a, b) in enumerate(PAIRS[:20])]
    source, out = write_lines(tmp_path / "pairs.jsonl", rows), tmp_path / "out"
    options: Any = {"rows_per_part": 10, "keep": ["n"], "on_error": "skip"}
    score_corpus(model, source, out, **options)
    write_lines(source, [*rows, {"query": "a", "document": "b", "n": 1.5}, {"query": "a", "document": "b", "n": 7}])
    found = score_corpus(model, source, out, **options)
    assert (found.rows_before, found.rows_scored, found.rows_skipped) == (20, 21, 1)
    assert [row["n"] for row in rows_of(out)] == [*range(20), 7]
    assert "n: expected int64, got float 1.5" in (out / "_errors" / "part-00002.jsonl").read_text()


def test_kept_times_and_numbers_in_json_lines(model: CrossEncoder, tmp_path: Path) -> None:
    when, number = datetime.datetime(2026, 1, 2, 3), decimal.Decimal("1.50")
    table = pa.table({"query": ["a", "b"], "document": ["c", None], "when": [when] * 2, "number": [number] * 2})
    options: Any = {"keep": ["when", "number"], "output_format": "jsonl", "on_error": "skip"}
    pyarrow.parquet.write_table(table, tmp_path / "pairs.parquet")
    score_corpus(model, tmp_path / "pairs.parquet", tmp_path / "out", **options)
    whole = table.set_column(1, "document", pa.array(["c", "d"]))
    pyarrow.parquet.write_table(whole, tmp_path / "pairs.parquet")
    found = score_corpus(model, tmp_path / "pairs.parquet", tmp_path / "out", retry_failed=True, **options)
    assert found.rows_scored == 2
    lines = [json.loads(line) for line in (tmp_path / "out" / "part-00000.jsonl").read_text().splitlines()]
    assert [(line["when"], line["number"]) for line in lines] == [("2026-01-02 03:00:00.000000", "1.50")] * 2
    bytes_table = whole.set_column(2, "when", pa.array([b"a", b"b"]))
    pyarrow.parquet.write_table(bytes_table, tmp_path / "bytes.parquet")
    with pytest.raises(ValueError, match="keep: when: JSON has no word for bytes; take Parquet"):
        score_corpus(model, tmp_path / "bytes.parquet", tmp_path / "other", **options)


@pytest.mark.parametrize("output", ["out", "out.csv"])
def test_lists_are_no_fields_of_csv_which_is_told_before_anything_is_scored(
    model: CrossEncoder, tmp_path: Path, output: str
) -> None:
    rows = [{"query": "a", "document": "b", "tags": ["x"]}] * 3
    source = write_lines(tmp_path / "pairs.jsonl", rows)
    options: Any = {"keep": ["tags"], "output_format": "csv", "top_k": 1, "rows_per_part": 2}
    with pytest.raises(ValueError, match="keep: tags: CSV has no room for lists or objects"):
        score_corpus(model, source, tmp_path / output, **options)
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".csv", ".parquet")]


class OneThatIsLate:
    """Scores as many windows as it is given, the first of them last."""

    def __init__(self, scorer: Scorer):
        self.scorer, self.machine = scorer, scorer.machine
        self.most_waiting = 0

    def stream(self, items: Iterator[Any], advance: Advance) -> Iterator[Any]:
        taken = SimpleQueue[Any]()
        Thread(target=lambda: [taken.put(item) for item in chain(items, [None])], daemon=True).start()
        while (item := taken.get()) is not None:
            waiting = [item]
            with suppress(Empty):
                while (item := taken.get(timeout=0.2)) is not None:
                    waiting.append(item)
            self.most_waiting = max(self.most_waiting, len(waiting))
            for beside, task in reversed(waiting):
                yield from self.scorer.stream(iter([(beside, task)]), advance)
            if item is None:
                return


def test_what_waits_for_a_slow_worker_is_bounded(
    model: CrossEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastce.corpus.score.WINDOW", 2)
    monkeypatch.setattr("fastce.corpus.single_file.WINDOWS_AHEAD", 3)
    late = OneThatIsLate(LocalScorer(model, ScoringOptions()))
    monkeypatch.setattr("fastce.corpus.score.chosen_scorer", lambda *_: nullcontext(late))
    score_corpus(model, write_pairs(tmp_path / "pairs.jsonl", PAIRS[:15]), tmp_path / "out.jsonl")
    scores = [json.loads(line)["score"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert scores == model.predict(PAIRS[:15]).tolist()
    assert late.most_waiting == 3
