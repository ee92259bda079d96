"""Haystack's pipelines with a ranker, fastce's component and its own over the patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reranking import QUERY, TEXTS, ranked, scores_of
from torch import nn

import fastce
from fastce import CrossEncoder

pytestmark = pytest.mark.integrations
pytest.importorskip("haystack")
MODULE = "fastce.integrations.haystack"


def documents() -> list[Any]:
    from haystack import Document

    return [Document(content=text, meta={"number": number, "none": None}) for number, text in enumerate(TEXTS)]


def pairs(found: dict[str, Any]) -> list[tuple[str, float]]:
    return [(document.content, document.score) for document in found["documents"]]


def pipeline_with(ranker: Any) -> Any:
    from haystack import Pipeline
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    store.write_documents(documents())
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=len(TEXTS)))
    pipeline.add_component("ranker", ranker)
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def run(pipeline: Any) -> tuple[list[str], list[tuple[str, float]]]:
    """The texts that were retrieved, and what became of them."""
    inputs = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    found = pipeline.run(inputs, include_outputs_from={"retriever"})
    return [document.content for document in found["retriever"]["documents"]], pairs(found["ranker"])


def test_a_pipeline_reranks_and_is_written_down(model_name: str) -> None:
    from haystack import Pipeline

    from fastce.integrations.haystack import FastceRanker

    pipeline = pipeline_with(FastceRanker(model_name, top_k=3, cross_encoder_kwargs={"max_length": 12}))
    retrieved, found = run(pipeline)
    ranking = CrossEncoder(model_name, max_length=12).rank(QUERY, retrieved, top_k=3, return_documents=True)
    assert found == [(entry["text"], entry["score"]) for entry in ranking]
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=[MODULE])
    assert run(again) == (retrieved, found)


@pytest.mark.parametrize(
    "options",
    [
        {"scale_score": False},
        {"meta_fields_to_embed": ["number", "none", "nothing"], "embedding_separator": ": ", "query_prefix": "a "},
        {"query_suffix": " b", "document_prefix": "c ", "document_suffix": " d", "score_threshold": 0.24},
    ],
)
def test_its_own_component_over_the_patch(model_name: str, forward_passes: list[str], options: Any) -> None:
    rankers = pytest.importorskip("haystack_integrations.components.rankers.sentence_transformers")
    from fastce.integrations.haystack import FastceRanker

    found = pairs(FastceRanker(model_name, **options).run(query=QUERY, documents=documents()))
    with fastce.patch_sentence_transformers():
        ranker = rankers.SentenceTransformersSimilarityRanker(model=model_name, **options)
        assert pairs(ranker.run(query=QUERY, documents=documents())) == found
        assert not forward_passes
    theirs = pairs(ranker.run(query=QUERY, documents=documents()))
    assert forward_passes
    assert [text for text, _ in theirs] == [text for text, _ in found]
    assert [score for _, score in theirs] == pytest.approx([score for _, score in found], abs=1e-5)
    assert 0 < len(found) <= len(TEXTS)


def test_arguments_of_a_call_win(model_name: str) -> None:
    from fastce.integrations.haystack import FastceRanker

    expected = ranked(model_name, activation_fn=nn.Identity())
    ranker = FastceRanker(CrossEncoder(model_name), score_threshold=0.9)
    arguments = {"top_k": 5, "scale_score": False, "score_threshold": expected[2][1]}
    assert pairs(ranker.run(query=QUERY, documents=documents(), **arguments)) == expected[:3]
    assert ranker.run(query=QUERY, documents=[]) == {"documents": []}


def test_of_copies_the_best_counts(model_name: str) -> None:
    from haystack import Document

    from fastce.integrations.haystack import FastceRanker

    copies = [Document(id="a", content=text, score=score) for text, score in zip(TEXTS, (None, 2.0, 1.0), strict=False)]
    assert [text for text, _ in pairs(FastceRanker(model_name).run(query=QUERY, documents=copies))] == [TEXTS[1]]


def test_what_does_not_go(model_name: str, tiny: Any) -> None:
    from fastce.integrations.haystack import FastceRanker

    with pytest.raises(ValueError, match="top_k: expected a positive whole number, got 0"):
        FastceRanker(model_name, top_k=0)
    with pytest.raises(ValueError, match="top_k: expected a positive whole number, got -1"):
        FastceRanker(model_name).run(query=QUERY, documents=documents(), top_k=-1)
    with pytest.raises(ValueError, match="was given loaded, and can't be written down"):
        FastceRanker(CrossEncoder(model_name)).to_dict()
    with pytest.raises(ValueError, match="has 3 labels; a reranker has one"):
        FastceRanker(tiny("bert", num_labels=3)).warm_up()


def test_a_token_and_a_device(model_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from haystack.utils import ComponentDevice, Secret

    from fastce.integrations import haystack

    asked: dict[str, Any] = {}
    monkeypatch.setattr(haystack, "load_reranker", lambda model, **options: asked.update(options, model=model))
    monkeypatch.setenv("A_TOKEN", "secret")
    made = haystack.FastceRanker(
        model_name,
        token=Secret.from_env_var("A_TOKEN"),
        device=ComponentDevice.from_str("cpu"),
        cross_encoder_kwargs={"device": "cuda", "max_length": 12},
    )
    assert "secret" not in str(made.to_dict())
    haystack.FastceRanker.from_dict(made.to_dict()).warm_up()
    assert asked == {"model": model_name, "token": "secret", "device": "cpu", "max_length": 12}


def test_the_evaluator_of_answers_over_the_patch(model_name: str, forward_passes: list[str]) -> None:
    from haystack.components.evaluators import SASEvaluator

    with fastce.patch_sentence_transformers():
        evaluator = SASEvaluator(model=model_name)
        found = evaluator.run(ground_truth_answers=TEXTS, predicted_answers=TEXTS[::-1])
        expected = CrossEncoder(model_name).predict(list(zip(TEXTS[::-1], TEXTS, strict=True)))
        assert found["individual_scores"] == expected.tolist()
        assert found["score"] == pytest.approx(float(np.mean(expected)))
        assert not forward_passes


def test_scores_are_those_of_predict(model_name: str) -> None:
    from fastce.integrations.haystack import FastceRanker

    found = dict(pairs(FastceRanker(model_name, top_k=100).run(query=QUERY, documents=documents())))
    assert [found[text] for text in TEXTS] == scores_of(model_name)
