"""`rerank_run` with runs of ranx and ir-measures, and BEIR's own reranking, which takes a model as it is."""

from __future__ import annotations

from typing import Any

import pytest
from reranking import TEXTS

import fastce
from fastce import CrossEncoder, rerank_run

pytestmark = pytest.mark.integrations
QUERIES = {"q1": "Is there a train to the sea?", "q2": "How long does it take to bake bread?"}
CORPUS = {f"d{number}": {"title": "About", "text": text} for number, text in enumerate(TEXTS)}
RUN = {query: {name: float(-number) for number, name in enumerate(CORPUS)} for query in QUERIES}
QRELS = {"q1": {"d7": 1}, "q2": {"d1": 1, "d2": 1}}


@pytest.fixture
def expected(model_name: str) -> dict[str, dict[str, float]]:
    model = CrossEncoder(model_name)
    return {
        query: dict(zip(CORPUS, model.predict([(text, f"About {found}") for found in TEXTS]).tolist(), strict=True))
        for query, text in QUERIES.items()
    }


def test_ranx(model_name: str, expected: Any) -> None:
    ranx = pytest.importorskip("ranx")
    found = rerank_run(model_name, ranx.Run(RUN, name="bm25"), QUERIES, CORPUS)
    assert (type(found), found.name, found.to_dict()) == (ranx.Run, "bm25", expected)
    best = rerank_run(model_name, ranx.Run(RUN), QUERIES, CORPUS, top_k=1).to_dict()
    assert best == {query: dict([max(found.items(), key=lambda entry: entry[1])]) for query, found in expected.items()}
    assert ranx.evaluate(ranx.Qrels(QRELS), found, "mrr") == ranx.evaluate(ranx.Qrels(QRELS), ranx.Run(expected), "mrr")


def test_ir_measures(model_name: str, expected: Any) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    run = (ir_measures.ScoredDoc(query, name, score) for query, found in RUN.items() for name, score in found.items())
    found = rerank_run(model_name, run, QUERIES, CORPUS)
    measure = ir_measures.nDCG @ 10
    assert ir_measures.calc_aggregate([measure], QRELS, found) == ir_measures.calc_aggregate([measure], QRELS, expected)
    assert {(entry.query_id, entry.doc_id): entry.score for entry in found} == {
        (query, name): score for query, scores in expected.items() for name, score in scores.items()
    }


def test_beir_takes_a_model(model_name: str, expected: Any) -> None:
    reranking = pytest.importorskip("beir.reranking")
    found = reranking.Rerank(CrossEncoder(model_name), batch_size=16).rerank(CORPUS, QUERIES, RUN, top_k=100)
    assert found == expected
    first = reranking.Rerank(CrossEncoder(model_name)).rerank(CORPUS, QUERIES, RUN, top_k=3)
    assert first == {query: {name: expected[query][name] for name in ("d0", "d1", "d2")} for query in QUERIES}


def test_beirs_class_over_the_patch(model_name: str, expected: Any, forward_passes: list[str]) -> None:
    reranking = pytest.importorskip("beir.reranking")
    from beir.reranking.models import CrossEncoder as Theirs

    with fastce.patch_sentence_transformers():
        model = Theirs(model_name)
        assert reranking.Rerank(model).rerank(CORPUS, QUERIES, RUN, top_k=100) == expected
        assert not forward_passes
    found = reranking.Rerank(model).rerank(CORPUS, QUERIES, RUN, top_k=100)
    assert forward_passes
    for query in QUERIES:
        assert found[query] == pytest.approx(expected[query], abs=1e-5)
