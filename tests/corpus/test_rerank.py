"""`fastce rerank`: a run in, a better run out, in one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpora import FIRST
from typer.testing import CliRunner

from fastce import CrossEncoder
from fastce.cli import app
from fastce.corpus.evaluate import measures

Tiny = Callable[..., str]
DOCUMENTS = [f"{FIRST[number % len(FIRST)]} {number}" for number in range(20)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection as BEIR has them, with a run of TREC."""
    monkeypatch.setenv("FASTCE_CACHE", str(tmp_path / "cache"))
    rows = [{"_id": f"d{number}", "title": "", "text": text, "metadata": {}} for number, text in enumerate(DOCUMENTS)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": f"q{number}", "text": FIRST[number]} for number in range(3)]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    lines = [f"q{number % 3} Q0 d{number} {number // 3 + 1} {-number} bm25\n" for number in range(20)]
    (tmp_path / "run.trec").write_text("".join(lines))
    judged = [f"q{number % 3}\td{number}\t{number % 2}\n" for number in range(20)]
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    return tmp_path


def arguments(folder: Path, model: str, *others: object) -> list[str]:
    names = {"--queries": "queries.jsonl", "--corpus": "corpus.jsonl", "--run": "run.trec", "--out": "out.trec"}
    files = [str(part) for name, file in names.items() for part in (name, folder / file)]
    return ["rerank", "--model", model, *files, *map(str, others)]


def test_a_run_is_reranked_and_measured(tiny: Tiny, folder: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    result = CliRunner().invoke(app, arguments(folder, tiny("bert"), "--qrels", folder / "qrels.tsv"))
    assert result.exit_code == 0, result.output
    found = [line.split() for line in (folder / "out.trec").read_text().splitlines()]
    expected = []
    for query in range(3):
        names = [number for number in range(20) if number % 3 == query]
        ranking = model.rank(FIRST[query], [DOCUMENTS[number] for number in names])
        expected += [(f"q{query}", f"d{names[entry['corpus_id']]}", rank + 1) for rank, entry in enumerate(ranking)]
        scores = [np.float32(fields[4]) for fields in found if fields[0] == f"q{query}"]
        assert scores == [np.float32(entry["score"]) for entry in ranking]
    assert [(fields[0], fields[2], int(fields[3])) for fields in found] == expected
    assert {(fields[1], fields[5]) for fields in found} == {("Q0", "fastce")}
    printed = dict(line.split("\t") for line in result.stdout.splitlines())
    assert set(printed) == {"nDCG@10", "MRR@10"}
    assert float(printed["nDCG@10"]) == pytest.approx(ndcg(expected), abs=1e-4)
    assert float(printed["MRR@10"]) == pytest.approx(mrr(expected), abs=1e-4)


def is_relevant(document: str) -> int:
    return int(document[1:]) % 2


def ndcg(ranking: list[tuple[str, str, int]]) -> float:
    """By its definition, with gains of 0 and 1."""
    values = []
    for query in range(3):
        gains = [is_relevant(document) for name, document, _ in ranking if name == f"q{query}"]
        best = sorted(gains, reverse=True)
        discounts = 1 / np.log2(np.arange(2, 12))
        values.append(np.dot(gains[:10], discounts[: len(gains[:10])]) / np.dot(best[:10], discounts[: len(best[:10])]))
    return float(np.mean(values))


def mrr(ranking: list[tuple[str, str, int]]) -> float:
    ranks = [
        [rank for name, document, rank in ranking if name == f"q{query}" and is_relevant(document)]
        for query in range(3)
    ]
    return float(np.mean([1 / min(found) for found in ranks]))


def test_the_best_of_a_run(tiny: Tiny, folder: Path) -> None:
    pytest.importorskip("fastce._core", reason="int8 is the C++ engine's")
    result = CliRunner().invoke(
        app, arguments(folder, tiny("bert"), "--top-k", 2, "--precision", "int8", "--rescore", "fp32")
    )
    assert result.exit_code == 0, result.output
    assert "pairs (" in result.stderr
    assert "were scored again" in result.stderr
    best = [tuple(line.split()[:5:2]) for line in (folder / "out.trec").read_text().splitlines()]
    assert CliRunner().invoke(app, arguments(folder, tiny("bert"), "--top-k", 2)).exit_code == 0
    assert best == [tuple(line.split()[:5:2]) for line in (folder / "out.trec").read_text().splitlines()]
    assert len(best) == 6


def test_what_cannot_be_measured(tiny: Tiny, folder: Path) -> None:
    (folder / "qrels.tsv").write_text("q0 d1 1\nq0 d2 one\n")
    with pytest.raises(ValueError, match=r"qrels\.tsv, line 2: expected ids and a grade, got 'q0 d2 one'"):
        measures(str(folder / "qrels.tsv"), str(folder / "run.trec"))
    line = [*arguments(folder, tiny("bert"), "--qrels", folder / "qrels.tsv"), "--out", str(folder / "out.jsonl")]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2
    assert "fastce: --qrels: measures a .trec file" in result.stderr
    texts = folder / "pairs.csv"
    with texts.open("w", newline="") as file:
        csv.writer(file).writerows([("query", "document"), ("a", "b")])
    result = CliRunner().invoke(
        app, ["score", "--model", tiny("bert"), "--in", str(texts), "--out", str(folder / "x.trec")]
    )
    assert result.exit_code == 2
    assert "fastce: --out: a run of TREC needs pairs of ids" in result.stderr
