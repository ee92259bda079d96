"""PyTerrier's pipelines and experiments with fastce's transformer, and with a model in `pt.apply.doc_score`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reranking import TEXTS, scores_of

from fastce import CrossEncoder

pytestmark = pytest.mark.integrations
pt = pytest.importorskip("pyterrier")
pd = pytest.importorskip("pandas")
QUERIES = {"q1": "Is there a train to the sea?", "q2": "How long does it take to bake bread?"}


def retrieved() -> Any:
    """What a retriever has found: all documents, in their order."""
    rows = [
        (qid, query, f"d{number}", text, float(-number), number)
        for qid, query in QUERIES.items()
        for number, text in enumerate(TEXTS)
    ]
    return pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])


def topics() -> Any:
    return pd.DataFrame(list(QUERIES.items()), columns=["qid", "query"])


def test_a_pipeline_reranks(model_name: str) -> None:
    from fastce.integrations.pyterrier import FastceReranker

    pipeline = pt.Transformer.from_df(retrieved()) >> FastceReranker(model_name)
    found = pipeline(topics()).sort_values(["qid", "docno"])
    for qid, query in QUERIES.items():
        rows = found[found["qid"] == qid].set_index("docno").loc[[f"d{number}" for number in range(len(TEXTS))]]
        scores = scores_of(model_name, query)
        assert rows["score"].tolist() == scores
        assert rows["rank"].tolist() == np.argsort(np.argsort(-np.array(scores), kind="stable")).tolist()
        assert rows["text"].tolist() == TEXTS


def test_a_model_in_doc_score_gives_the_same(model_name: str) -> None:
    from fastce.integrations.pyterrier import FastceReranker

    model = CrossEncoder(model_name)
    scored = pt.apply.doc_score(
        lambda frame: model.predict(list(zip(frame["query"], frame["text"], strict=True))), batch_size=4
    )
    found, expected = (transformer(retrieved()) for transformer in (scored, FastceReranker(model)))
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))


def test_an_experiment(model_name: str) -> None:
    from fastce.integrations.pyterrier import FastceReranker

    first = pt.Transformer.from_df(retrieved())
    reranked = first >> FastceReranker(model_name)
    best = [TEXTS[int(np.argmax(scores_of(model_name, query)))] for query in QUERIES.values()]
    qrels = pd.DataFrame(
        [(qid, f"d{TEXTS.index(text)}", 1) for qid, text in zip(QUERIES, best, strict=True)],
        columns=["qid", "docno", "label"],
    )
    names = ["first", "reranked"]
    table = pt.Experiment([first, reranked], topics(), qrels, ["recip_rank"], names=names, plan="tree")
    found = table.set_index("name")["recip_rank"]
    assert found["first"] < found["reranked"] == 1.0


def test_frames_that_do_not_fit(model_name: str) -> None:
    from fastce.integrations.pyterrier import FastceReranker

    reranker = FastceReranker(model_name, text_field="body")
    with pytest.raises(Exception, match="body"):
        reranker(retrieved())
    assert len(FastceReranker(model_name)(retrieved()[:0])) == 0
    assert reranker(retrieved().rename(columns={"text": "body"}))["score"].tolist() == [
        score for query in QUERIES.values() for score in scores_of(model_name, query)
    ]
