"""LlamaIndex: a node postprocessor that reranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from fastce.integrations.models import load_reranker, name_of, together

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

dispatcher = get_dispatcher(__name__)


class FastceRerank(BaseNodePostprocessor):
    """Keeps the nodes that a cross-encoder scores best, with its scores.

        index.as_query_engine(similarity_top_k=10, node_postprocessors=[FastceRerank("a/model", top_n=3)])

    Args:
        model: A model's directory or Hub id, or a model with one label.
        top_n: How many nodes to keep.
        device: Where to run; None takes the best one at hand.
        keep_retrieval_score: Whether nodes keep the score that they came with, as `retrieval_score` in their metadata.
        cross_encoder_kwargs: Further arguments of `CrossEncoder`, such as `{"precision": "int8"}`.
    """

    model: str = Field(description="The directory or Hub id of a cross-encoder.")
    top_n: int = Field(default=2, ge=1, description="How many nodes to keep.")
    device: str | None = Field(default=None, description="Where to run.")
    keep_retrieval_score: bool = Field(default=False, description="Whether nodes keep the score they came with.")
    cross_encoder_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of fastce.CrossEncoder."
    )
    _encoder: Any = PrivateAttr()

    def __init__(self, model: CrossEncoder | str, **fields: Any):
        super().__init__(model=model if isinstance(model, str) else name_of(model), **fields)
        self._encoder = load_reranker(model, **together({"device": self.device}, self.cross_encoder_kwargs))

    @classmethod
    def class_name(cls) -> str:
        """What the class is called where it is written down."""
        return "FastceRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("FastceRerank: needs a query")
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
            best = [
                self._scored(nodes[entry["corpus_id"]], entry["score"])
                for entry in self._encoder.rank(query_bundle.query_str, texts, top_k=self.top_n)
            ]
            event.on_end(payload={EventPayload.NODES: best})
        dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    def _scored(self, node: NodeWithScore, score: float) -> NodeWithScore:
        """A node with another score; the one that came in, and its metadata, stay as they are."""
        inner = node.node
        if self.keep_retrieval_score:
            inner = inner.model_copy(update={"metadata": inner.metadata | {"retrieval_score": node.score}})
        return NodeWithScore(node=inner, score=score)
