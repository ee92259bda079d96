"""`rerank_run`: what `fastce rerank` does, with runs in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import FIRST

import fastce
from fastce import CrossEncoder, ModelOptions, rerank_run
from fastce.corpus import rerank

Tiny = Callable[..., str]
QUERIES = {f"q{number}": FIRST[number] for number in range(3)}
CORPUS: dict[str, Any] = {f"d{number}": f"{FIRST[number % len(FIRST)]} {number}" for number in range(20)}
CORPUS["d7"] = {"title": "Bread", "text": "Flour and water."}
CORPUS["d3"] = CORPUS["d9"]  # equal scores
RUN = {f"q{query}": {f"d{number}": -float(number) for number in range(query, 20, 3)} for query in range(3)}


@pytest.fixture
def model(tiny: Tiny) -> CrossEncoder:
    return CrossEncoder(tiny("bert"))


def text(document: str) -> str:
    entry = CORPUS[document]
    return entry if isinstance(entry, str) else "Bread Flour and water."


def expected(model: CrossEncoder, top_k: int | None) -> dict[str, list[tuple[str, float]]]:
    found = {}
    for query, documents in RUN.items():
        names = list(documents)
        ranking = model.rank(QUERIES[query], [text(name) for name in names], top_k=top_k)
        found[query] = [(names[entry["corpus_id"]], entry["score"]) for entry in ranking]
    return found


@pytest.mark.parametrize("top_k", [None, 2])
def test_each_query_is_ranked_as_rank_does(
    model: CrossEncoder, monkeypatch: pytest.MonkeyPatch, top_k: int | None
) -> None:
    found = rerank_run(model, RUN, QUERIES, CORPUS, top_k)
    assert {query: list(documents.items()) for query, documents in found.items()} == expected(model, top_k)
    monkeypatch.setattr(rerank, "WINDOW", 5)  # less than a query has
    assert rerank_run(model, RUN, QUERIES, CORPUS, top_k) == found


def test_scored_documents_of_ir_measures(model: CrossEncoder) -> None:
    measures = pytest.importorskip("ir_measures")
    entries = (measures.ScoredDoc(query, name, score) for query, found in RUN.items() for name, score in found.items())
    found = rerank_run(model, entries, QUERIES, CORPUS, top_k=2)
    triples = [(query, *entry) for query, entries in expected(model, 2).items() for entry in entries]
    assert found == [measures.ScoredDoc(*triple) for triple in triples]


def test_the_command_gives_the_same(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastce._core", reason="int8 is the C++ engine's")
    monkeypatch.setenv("FASTCE_CACHE", str(tmp_path / "cache"))
    queries, corpus, run, out = (str(tmp_path / name) for name in ("q.tsv", "d.jsonl", "run.tsv", "out.jsonl"))
    Path(queries).write_text("".join(f"{name}\t{query}\n" for name, query in QUERIES.items()), encoding="utf-8")
    entries = [{"title": "", "text": entry} if isinstance(entry, str) else entry for entry in CORPUS.values()]
    rows = [{"_id": name, **entry} for name, entry in zip(CORPUS, entries, strict=True)]
    Path(corpus).write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path(run).write_text("".join(f"{query}\t{name}\n" for query, names in RUN.items() for name in names))
    options = ModelOptions(tiny("bert"), precision="int8")
    fastce.score_corpus(options, run, out, queries=queries, documents=corpus, top_k=3, rescore="fp32")
    rows = [json.loads(line) for line in Path(out).read_text().splitlines()]
    found = rerank_run(options, RUN, QUERIES, CORPUS, 3, rescore="fp32")
    triples = [(query, name, np.float32(score)) for query, names in found.items() for name, score in names.items()]
    assert triples == [(row["query_id"], row["document_id"], np.float32(row["score"])) for row in rows]


def test_the_default_prompt_counts(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"), prompts={"ask": "where can I learn: "}, default_prompt_name="ask")
    found = rerank_run(model, RUN, QUERIES, CORPUS)
    assert {query: list(documents.items()) for query, documents in found.items()} == expected(model, None)


def test_nothing_to_rank(model: CrossEncoder) -> None:
    assert rerank_run(model, {}, QUERIES, CORPUS) == {}
    assert rerank_run(model, [], QUERIES, CORPUS) == []
    assert rerank_run(model, {"q0": {}}, QUERIES, CORPUS, 3) == {"q0": {}}


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        ({"q9": {"d1": 1.0}}, ValueError, "run: query 'q9' is not in queries"),
        ({"q0": {"d1": 1.0, "d99": 1.0}}, ValueError, "run: document 'd99' of query 'q0' is not in corpus"),
        ({"q0": "d1"}, TypeError, r"run\['q0'\]: expected {document id: score}, got str 'd1'"),
        ([("q0", "d1", 1.0)], TypeError, r"run\[0\]: expected a ScoredDoc, got tuple"),
        ("run.trec", TypeError, "run: expected .* got str 'run.trec'"),
        ({"q0": {"none": 1.0}}, TypeError, r"corpus\['none'\]: expected str, got None"),
        ({"empty": {"d0": 1.0}}, TypeError, r"queries\['empty'\]: expected str, got None"),
    ],
)
def test_what_is_missing_is_named(model: CrossEncoder, run: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rerank_run(model, run, {**QUERIES, "empty": None}, {**CORPUS, "none": {"title": "A", "text": None}})  # type: ignore[dict-item]


def test_a_model_that_does_not_rank(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="needs a model with one label, this one has 3"):
        rerank_run(tiny("bert", num_labels=3), RUN, QUERIES, CORPUS)
    with pytest.raises(ValueError, match="rescore: needs top_k"):
        rerank_run(tiny("bert"), RUN, QUERIES, CORPUS, rescore="fp32")
