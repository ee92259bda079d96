"""Cohere, in both versions, and Jina and vLLM in Cohere's words."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue, model_validator

from fastce.server.messages import (
    Outcome,
    PairTokens,
    Request,
    Texts,
    Usage,
    UseActivation,
    chosen_length,
    identifier,
)
from fastce.server.service import Ask


class DocumentText(BaseModel):
    """A document in an answer."""

    text: str


class RankedDocument(BaseModel):
    """A document's score."""

    index: int
    relevance_score: float
    document: DocumentText | None = None


class ApiVersion(BaseModel):
    """Cohere's version of the language."""

    version: str


class BilledUnits(BaseModel):
    """Cohere counts searches."""

    search_units: int = 1


class Meta(BaseModel):
    """What Cohere says beside the results."""

    api_version: ApiVersion
    billed_units: BilledUnits = BilledUnits()


class RerankAnswer(BaseModel):
    """Documents, best first."""

    id: str = Field(default_factory=identifier)
    object: Literal["rerank"] = "rerank"
    model: str
    results: list[RankedDocument]
    usage: Usage
    meta: Meta


class RerankRequest(Request):
    """What reranking requests of Cohere, Jina and vLLM have in common."""

    query: str
    top_n: int | None = Field(None, ge=0, description="How many results; all by default.")
    max_tokens_per_doc: int | None = Field(None, ge=1, description="Must leave what the model reads as it is.")
    return_documents: bool = False

    @property
    def contents(self) -> list[str]:
        """The documents' texts."""
        raise NotImplementedError

    def ask(self) -> Ask:
        """See `Request`."""
        return Ask([self.query] * len(self.contents), self.contents, document_tokens=self.max_tokens_per_doc)

    def answered(self, outcome: Outcome, version: str) -> RerankAnswer:
        """The results."""
        texts = self.contents
        shown = [DocumentText(text=text) if self.return_documents else None for text in texts]
        return RerankAnswer(
            model=outcome.model,
            results=[
                RankedDocument(index=index, relevance_score=score, document=shown[index])
                for index, score in outcome.ranked(self.top_n or None)
            ],
            usage=Usage(prompt_tokens=outcome.tokens, total_tokens=outcome.tokens),
            meta=Meta(api_version=ApiVersion(version=version)),
        )


class RerankV1Request(RerankRequest):
    """A query and documents, texts or objects with fields, to rank by it."""

    documents: list[str | dict[str, JsonValue]] = Field(min_length=1)
    rank_fields: list[str] | None = Field(None, description="The fields of documents to read, in this order; or text.")
    return_documents: bool = True
    truncate_prompt_tokens: PairTokens = None
    use_activation: UseActivation = None
    raw_scores: bool = Field(False, description="True gives logits in place of probabilities.")

    @property
    def wants_logits(self) -> bool:
        """See `Request`."""
        return self.raw_scores or self.use_activation is False

    @property
    def contents(self) -> list[str]:
        """See `RerankRequest`."""
        fields = self.rank_fields or ["text"]
        return [
            document if isinstance(document, str) else "\n".join(str(document[field]) for field in fields)
            for document in self.documents
        ]

    @model_validator(mode="after")
    def check(self) -> RerankV1Request:
        """Raises ValueError where a document lacks a field."""
        for number, document in enumerate(self.documents):
            for field in self.rank_fields or ["text"]:
                if isinstance(document, dict) and field not in document:
                    raise ValueError(f"documents[{number}] has no field {field!r}; its fields: {sorted(document)}")
        return self

    def ask(self) -> Ask:
        """See `Request`."""
        return super().ask()._replace(max_length=chosen_length(self.truncate_prompt_tokens))

    def answer(self, outcome: Outcome) -> RerankAnswer:
        """See `Request`."""
        return self.answered(outcome, "1")


class RerankV2Request(RerankRequest):
    """A query and documents to rank by it."""

    documents: Texts

    @property
    def contents(self) -> list[str]:
        """See `RerankRequest`."""
        return self.documents

    def answer(self, outcome: Outcome) -> RerankAnswer:
        """See `Request`."""
        return self.answered(outcome, "2")


def rerank_error(status: int, message: str) -> dict[str, Any]:
    """Where Cohere's clients look for what is wrong, and where Jina's do."""
    return {"message": message, "detail": message}
