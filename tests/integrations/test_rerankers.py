"""The package rerankers with fastce's ranker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reranking import QUERY, TEXTS, ranked, scores_of
from torch import nn

pytestmark = pytest.mark.integrations
pytest.importorskip("rerankers")


@pytest.fixture
def ranker(model_name: str) -> Any:
    from rerankers import Reranker

    import fastce.integrations.rerankers  # noqa: F401  # which makes its name known

    return Reranker(model_name, model_type="FastceRanker", verbose=0)


def pairs(found: Any) -> list[tuple[str, float]]:
    return [(result.text, result.score) for result in found]


def test_documents_are_ranked(ranker: Any, model_name: str) -> None:
    results = ranker.rank(QUERY, TEXTS)
    assert pairs(results) == ranked(model_name)
    assert pairs(results.top_k(2)) == ranked(model_name)[:2]
    assert [result.rank for result in results] == list(range(1, len(TEXTS) + 1))
    assert [results.get_score_by_docid(number) for number in range(len(TEXTS))] == scores_of(model_name)
    assert [ranker.score(QUERY, text) for text in TEXTS] == scores_of(model_name)
    assert ranker.rank(QUERY, []).results == []
    assert pairs(ranker.rank(QUERY, TEXTS[0])) == ranked(model_name, texts=TEXTS[:1])


def test_ids_and_metadata_stay_with_their_documents(ranker: Any) -> None:
    from rerankers import Document

    names = [f"d{number}" for number in range(len(TEXTS))]
    notes = [{"number": number} for number in range(len(TEXTS))]
    documents = [
        Document(text, doc_id=name, metadata=note) for text, name, note in zip(TEXTS, names, notes, strict=True)
    ]
    for results in (ranker.rank(QUERY, documents), ranker.rank(QUERY, TEXTS, doc_ids=names, metadata=notes)):
        for result in results:
            number = TEXTS.index(result.text)
            assert (result.document.doc_id, result.document.metadata) == (names[number], {"number": number})


def test_the_order_is_that_of_its_own_ranker(ranker: Any, model_name: str) -> None:
    from rerankers.models.transformer_ranker import TransformerRanker

    theirs = TransformerRanker(model_name, device="cpu", verbose=0).rank(QUERY, TEXTS)
    assert [result.text for result in theirs] == [result.text for result in ranker.rank(QUERY, TEXTS)]
    logits = dict(ranked(model_name, activation_fn=nn.Identity()))
    assert np.abs([result.score - logits[result.text] for result in theirs]).max() < 1e-5
