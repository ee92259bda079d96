"""Cohere, in both versions, and Jina and vLLM in Cohere's words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, JsonValue, model_validator

from fastce.checks import describe
from fastce.server.messages import Outcome, PairsRequest, Text, Texts, Usage, identifier
from fastce.server.service import Ask
from fastce.tokenization import well_formed


def mended(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """A document whose texts are all well-formed, since it may come back."""
    found: dict[str, JsonValue] = json.loads(well_formed(json.dumps(document, ensure_ascii=False)))
    return found


Document = Annotated[dict[str, JsonValue], AfterValidator(mended)]


class RankedDocument(BaseModel):
    """A document's score."""

    index: int
    relevance_score: float
    document: dict[str, JsonValue] | None = None


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


class RerankRequest(PairsRequest):
    """What both versions of Cohere's reranking have in common."""

    query: Text
    documents: Sequence[Text | Document]
    top_n: int | None = Field(None, ge=0, description="How many results; all by default.")
    return_documents: bool = False

    @property
    def contents(self) -> list[str]:
        """The documents' texts."""
        raise NotImplementedError

    def ask(self) -> Ask:
        """See `Request`."""
        return self.asked([self.query] * len(self.contents), self.contents)

    def answered(self, outcome: Outcome, version: str) -> RerankAnswer:
        """The results."""
        sent: list[dict[str, JsonValue]] = [
            {"text": document} if isinstance(document, str) else document for document in self.documents
        ]
        return RerankAnswer(
            model=outcome.model,
            results=[
                RankedDocument(
                    index=index, relevance_score=score, document=sent[index] if self.return_documents else None
                )
                for index, score in outcome.ranked(self.top_n or None)
            ],
            usage=Usage(prompt_tokens=outcome.tokens, total_tokens=outcome.tokens),
            meta=Meta(api_version=ApiVersion(version=version)),
        )


class RerankV1Request(RerankRequest):
    """A query and documents, texts or objects with fields, to rank by it."""

    documents: Annotated[list[Text | Document], Field(min_length=1)]
    rank_fields: list[Text] | None = Field(None, description="The fields of documents to read, in this order; or text.")
    return_documents: bool = True

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
        """Raises ValueError where a document has no text in a field."""
        for number, document in enumerate(self.documents):
            for field in self.rank_fields or ["text"]:
                if isinstance(document, dict) and not isinstance(value := document.get(field), str):
                    raise ValueError(
                        f"documents[{number}] has no text in field {field!r}, but {describe(value)}; "
                        f"its fields: {sorted(document)}"
                    )
        return self

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
