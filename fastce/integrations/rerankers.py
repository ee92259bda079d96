"""The package rerankers: a ranker, which `Reranker(name, model_type="FastceRanker")` finds once this is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerankers.documents import Document
from rerankers.models import AVAILABLE_RANKERS
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults, Result
from rerankers.utils import prep_docs

from fastce.integrations.models import load_reranker

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder
    from fastce.options import ModelOptions


class FastceRanker(BaseRanker):
    """Ranks documents for the package rerankers.

    Args:
        model_name_or_path: A model with one label, what it is loaded with, or its directory or Hub id.
        verbose: Has no effect: nothing is printed.
        **options: Further arguments of `CrossEncoder`, for a directory or Hub id.
    """

    def __init__(self, model_name_or_path: CrossEncoder | ModelOptions | str, verbose: int = 0, **options: Any):
        self.verbose = verbose
        self.model = load_reranker(model_name_or_path, **options)

    def score(self, query: str, doc: str) -> float:
        """The score of one document, as `CrossEncoder.predict` gives it."""
        return float(self.model.predict((query, doc)))

    def rank(
        self,
        query: str,
        docs: str | list[str] | Document | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """Ranks documents.

        Args:
            query: The query.
            docs: The documents, as texts or with ids and metadata.
            doc_ids: Ids of them; None numbers documents that have none from 0 up.
            metadata: What comes with each of them.

        Returns:
            The documents with scores and ranks from 1 up, best first, ties in the order of `docs`.
        """
        documents = prep_docs(docs, doc_ids, metadata) if docs else []
        ranking = self.model.rank(query, [document.text for document in documents])
        results = [
            Result(document=documents[entry["corpus_id"]], score=entry["score"], rank=rank)
            for rank, entry in enumerate(ranking, start=1)
        ]
        return RankedResults(results=results, query=query, has_scores=True)


AVAILABLE_RANKERS[FastceRanker.__name__] = FastceRanker
