"""Haystack: a ranker for pipelines. Haystack reads the types of `run`, so annotations are evaluated here."""

from dataclasses import replace
from inspect import signature
from math import inf
from pathlib import Path
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import ComponentDevice, Secret
from torch.nn import Identity, Sigmoid

from fastce.checks import check_positive
from fastce.cross_encoder import CrossEncoder
from fastce.integrations.models import load_reranker, name_of, together


@component
class FastceRanker:
    """Ranks documents by what a cross-encoder says of them and the query.

    The arguments are those of Haystack's `SentenceTransformersSimilarityRanker`, but for the ones about loading: these
    are in `cross_encoder_kwargs`.

    Args:
        model: A model's directory or Hub id; or a model with one label, with which a pipeline can't be written down.
        device: Where to run; None takes the best one at hand.
        token: Access token for the Hub.
        top_k: How many documents to return at most.
        query_prefix: Put before the query.
        query_suffix: Put behind the query.
        document_prefix: Put before each document.
        document_suffix: Put behind each document.
        meta_fields_to_embed: Metadata to put before the text of a document that has it.
        embedding_separator: What stands between these.
        scale_score: Whether scores are sigmoids of logits, or the logits.
        score_threshold: The lowest score of a document to return.
        cross_encoder_kwargs: Further arguments of `CrossEncoder`, such as `{"precision": "int8", "max_length": 256}`.

    Raises:
        ValueError: `top_k` is not positive.
    """

    def __init__(
        self,
        model: str | Path | CrossEncoder,
        *,
        device: ComponentDevice | None = None,
        token: Secret | None = Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False),  # noqa: B008  # frozen
        top_k: int = 10,
        query_prefix: str = "",
        query_suffix: str = "",
        document_prefix: str = "",
        document_suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        scale_score: bool = True,
        score_threshold: float | None = None,
        cross_encoder_kwargs: dict[str, Any] | None = None,
    ):
        self.model = str(model) if isinstance(model, Path) else model
        self.device = device
        self.token = token
        self.top_k = check_positive(top_k, "top_k")
        self.query_prefix = query_prefix
        self.query_suffix = query_suffix
        self.document_prefix = document_prefix
        self.document_suffix = document_suffix
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.scale_score = scale_score
        self.score_threshold = score_threshold
        self.cross_encoder_kwargs = cross_encoder_kwargs or {}
        self._encoder: CrossEncoder | None = None

    def _get_telemetry_data(self) -> dict[str, Any]:
        """What Haystack may tell its makers."""
        return {"model": self._name}

    @property
    def _name(self) -> str:
        return self.model if isinstance(self.model, str) else name_of(self.model)

    def warm_up(self) -> None:
        """Loads the model, if it has not been.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: It has no head, or more than one label.
        """
        if self._encoder is None:
            options = {"device": None if self.device is None else self.device.to_torch_str()}
            if isinstance(self.model, str):
                options["token"] = None if self.token is None else self.token.resolve_value()
            self._encoder = load_reranker(self.model, **together(options, self.cross_encoder_kwargs))

    def to_dict(self) -> dict[str, Any]:
        """The component as a pipeline's file has it.

        Raises:
            ValueError: It was made from a loaded model.
        """
        if not isinstance(self.model, str):
            raise ValueError(f"FastceRanker: {self._name} was given loaded, and can't be written down; give its name")
        parameters = {name: value for name, value in vars(self).items() if name in PARAMETERS}
        return default_to_dict(self, **parameters)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "FastceRanker":
        """The component that `to_dict` has written down."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Ranks documents. Of those with equal ids the one with the highest score counts.

        Args:
            query: The query.
            documents: The documents.
            top_k: See the class, as for all that follow; None takes its own.
            scale_score: Whether scores are sigmoids.
            score_threshold: The lowest score to return.

        Returns:
            `documents`: copies with their scores, best first.

        Raises:
            ValueError: `top_k` is not positive.
        """
        self.warm_up()
        assert self._encoder is not None
        scale = self.scale_score if scale_score is None else scale_score
        threshold = self.score_threshold if score_threshold is None else score_threshold
        unique = without_copies(documents)
        ranking = self._encoder.rank(
            self.query_prefix + query + self.query_suffix,
            [self._text_of(document) for document in unique],
            top_k=self.top_k if top_k is None else check_positive(top_k, "top_k"),
            activation_fn=Sigmoid() if scale else Identity(),
        )
        ranked = [replace(unique[entry["corpus_id"]], score=entry["score"]) for entry in ranking]
        return {"documents": [document for document in ranked if threshold is None or document.score >= threshold]}

    def _text_of(self, document: Document) -> str:
        values = [document.meta.get(name) for name in self.meta_fields_to_embed]
        parts = [*(str(value) for value in values if value is not None), document.content or ""]
        return self.document_prefix + self.embedding_separator.join(parts) + self.document_suffix


PARAMETERS = frozenset(signature(FastceRanker.__init__).parameters) - {"self"}


def without_copies(documents: list[Document]) -> list[Document]:
    """The documents, each id once, with the highest score there is."""
    best: dict[str, Document] = {}
    for document in documents:
        if document.id not in best or score_of(document) > score_of(best[document.id]):
            best[document.id] = document
    return list(best.values())


def score_of(document: Document) -> float:
    """A document's score; minus infinity where it has none."""
    return -inf if document.score is None else document.score
