"""LlamaIndex's query engine with a reranking postprocessor, fastce's class and its own over the patch."""

from __future__ import annotations

from typing import Any

import pytest
from reranking import QUERY, TEXTS, ranked

import fastce
from fastce import CrossEncoder

pytestmark = pytest.mark.integrations
pytest.importorskip("llama_index.core")


def nodes(**metadata: str) -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text, metadata=dict(metadata)), score=0.5) for text in TEXTS]


def pairs(found: list[Any]) -> list[tuple[str, float]]:
    return [(node.node.get_content(), node.score) for node in found]


def test_a_query_engine_reranks(model_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
    from llama_index.core.llms import MockLLM

    from fastce.integrations.llama_index import FastceRerank

    monkeypatch.setattr(Settings, "_llm", MockLLM())
    index = VectorStoreIndex([node.node for node in nodes()], embed_model=MockEmbedding(embed_dim=8))
    for model in (model_name, CrossEncoder(model_name)):
        rerank = FastceRerank(model, top_n=3)
        engine = index.as_query_engine(similarity_top_k=len(TEXTS), node_postprocessors=[rerank])
        found = engine.query(QUERY).source_nodes
        assert dict(pairs(found)) == dict(ranked(model_name)[:3])
        assert [node.score for node in found] == sorted((node.score for node in found), reverse=True)


def test_its_own_class_over_the_patch(model_name: str, forward_passes: list[str]) -> None:
    from llama_index.postprocessor.sbert_rerank import SentenceTransformerRerank

    from fastce.integrations.llama_index import FastceRerank

    with fastce.patch_sentence_transformers():
        rerank = SentenceTransformerRerank(model=model_name, top_n=3, device="cpu")
        assert pairs(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == ranked(model_name)[:3]
        found = rerank.postprocess_nodes(nodes(title="Trains"), query_str=QUERY)
        assert pairs(found) != ranked(model_name)[:3]
        ours = FastceRerank(model_name, top_n=3).postprocess_nodes(nodes(title="Trains"), query_str=QUERY)
        assert pairs(ours) == pairs(found)
        assert not forward_passes
    theirs = SentenceTransformerRerank(model=model_name, top_n=3, device="cpu")
    assert pairs(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == pairs(
        theirs.postprocess_nodes(nodes(), query_str=QUERY)
    )
    assert forward_passes


def test_retrieval_scores_are_kept_and_nodes_left_alone(model_name: str) -> None:
    from fastce.integrations.llama_index import FastceRerank

    given = nodes()
    (best,) = FastceRerank(model_name, top_n=1, keep_retrieval_score=True).postprocess_nodes(given, query_str=QUERY)
    assert (best.node.metadata, best.score) == ({"retrieval_score": 0.5}, ranked(model_name)[0][1])
    assert all((node.score, node.node.metadata) == (0.5, {}) for node in given)


def test_listeners_hear_of_it(model_name: str) -> None:
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent

    from fastce.integrations.llama_index import FastceRerank

    heard: list[Any] = []

    class Listener(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            heard.append(event)

    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank = FastceRerank(model_name, top_n=2, callback_manager=CallbackManager([handler]))
    root, listener = get_dispatcher("root"), Listener()
    root.add_event_handler(listener)
    try:
        found = rerank.postprocess_nodes(nodes(), query_str=QUERY)
    finally:
        root.event_handlers.remove(listener)
    started, ended = (event for event in heard if isinstance(event, ReRankStartEvent | ReRankEndEvent))
    assert (started.model_name, started.top_n, len(started.nodes)) == (model_name, 2, len(TEXTS))
    assert pairs(ended.nodes) == pairs(found)
    ((start, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    assert (start.payload[EventPayload.QUERY_STR], start.payload[EventPayload.TOP_K]) == (QUERY, 2)
    assert pairs(end.payload[EventPayload.NODES]) == pairs(found)


def test_it_is_written_down_and_made_again(model_name: str) -> None:
    from fastce.integrations.llama_index import FastceRerank

    rerank = FastceRerank(model_name, top_n=3, device="cpu", cross_encoder_kwargs={"max_length": 12, "device": "cpu"})
    again = FastceRerank.from_dict(rerank.to_dict())
    expected = CrossEncoder(model_name, max_length=12).rank(QUERY, TEXTS, top_k=3, return_documents=True)
    assert pairs(again.postprocess_nodes(nodes(), query_str=QUERY)) == [
        (entry["text"], entry["score"]) for entry in expected
    ]


def test_what_does_not_go(model_name: str) -> None:
    from fastce.integrations.llama_index import FastceRerank

    with pytest.raises(ValueError, match="max_length: only for a model that is given by its name"):
        FastceRerank(CrossEncoder(model_name), cross_encoder_kwargs={"max_length": 12})
    with pytest.raises(ValueError, match="FastceRerank: needs a query"):
        FastceRerank(model_name).postprocess_nodes(nodes())
    assert FastceRerank(model_name).postprocess_nodes([], query_str=QUERY) == []
