"""LangChain's reranking retriever, with fastce's class and with its own over the patch."""

from __future__ import annotations

from typing import Any

import pytest
from reranking import QUERY, TEXTS, ranked, scores_of

import fastce
from fastce import CrossEncoder, ModelOptions

pytestmark = pytest.mark.integrations
pytest.importorskip("langchain_classic")
pytest.importorskip("langchain_community")


def reranked(model: Any, top_n: int = 3) -> list[str]:
    """The flow of LangChain's tutorial: many documents by embeddings, few of them by a cross-encoder."""
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore.from_texts(TEXTS, DeterministicFakeEmbedding(size=8))
    retriever = ContextualCompressionRetriever(
        base_compressor=CrossEncoderReranker(model=model, top_n=top_n),
        base_retriever=store.as_retriever(search_kwargs={"k": len(TEXTS)}),
    )
    return [document.page_content for document in retriever.invoke(QUERY)]


@pytest.mark.parametrize("given", ["name", "options", "model"])
def test_a_retriever_reranks(model_name: str, given: str) -> None:
    from fastce.integrations.langchain import FastceCrossEncoder

    made = {"name": str, "options": ModelOptions, "model": CrossEncoder}[given](model_name)
    model = FastceCrossEncoder(made)
    assert reranked(model) == [text for text, _ in ranked(model_name)[:3]]
    assert model.score([(QUERY, text) for text in TEXTS]) == scores_of(model_name)
    assert model.score((QUERY, TEXTS[0])) == scores_of(model_name)[:1]


def test_its_own_class_over_the_patch(model_name: str, forward_passes: list[str]) -> None:
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder

    pairs = [(QUERY, text) for text in TEXTS]
    with fastce.patch_sentence_transformers():
        model = HuggingFaceCrossEncoder(model_name=model_name)
        assert reranked(model) == [text for text, _ in ranked(model_name)[:3]]
        assert list(model.score(pairs)) == scores_of(model_name)
        assert not forward_passes
    theirs = model.score(pairs)
    assert forward_passes
    assert list(theirs) == list(HuggingFaceCrossEncoder(model_name=model_name).score(pairs))
    assert theirs == pytest.approx(scores_of(model_name), abs=1e-5)


def test_a_model_that_does_not_rank(tiny: Any) -> None:
    from fastce.integrations.langchain import FastceCrossEncoder

    with pytest.raises(ValueError, match="has 3 labels; a reranker has one"):
        FastceCrossEncoder(tiny("bert", num_labels=3))
