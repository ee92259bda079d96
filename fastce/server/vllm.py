"""The scores of vLLM."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

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


class Score(BaseModel):
    """A pair's score."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreAnswer(BaseModel):
    """Scores in the order of the pairs."""

    id: str = Field(default_factory=identifier)
    object: Literal["list"] = "list"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    data: list[Score]
    usage: Usage


class ScoreRequest(Request):
    """A text and others, or two lists of texts, pair by pair."""

    text_1: str | Texts | None = Field(None, description="A text, or as many as of the others.")
    text_2: str | Texts | None = None
    queries: str | Texts | None = Field(None, description="text_1 by another name.")
    documents: str | Texts | None = Field(None, description="text_2 by another name.")
    truncate_prompt_tokens: PairTokens = None
    use_activation: UseActivation = None

    @property
    def wants_logits(self) -> bool:
        """See `Request`."""
        return self.use_activation is False

    @property
    def sides(self) -> tuple[Texts, Texts]:
        """The first texts and the second ones, as many."""
        first, second = as_texts(self.text_1, self.queries), as_texts(self.text_2, self.documents)
        return first * len(second) if len(first) == 1 else first, second

    @model_validator(mode="after")
    def check(self) -> ScoreRequest:
        """Raises ValueError where the texts make no pairs."""
        first, second = self.sides
        if not first or len(first) != len(second):
            raise ValueError(
                "expected text_1 and text_2 (or queries and documents), one text and some, or as many of both; got "
                f"{len(as_texts(self.text_1, self.queries))} and {len(second)}"
            )
        return self

    def ask(self) -> Ask:
        """See `Request`."""
        return Ask(*self.sides, max_length=chosen_length(self.truncate_prompt_tokens))

    def answer(self, outcome: Outcome) -> ScoreAnswer:
        """See `Request`."""
        scores = outcome.scores[:, 0].tolist()
        return ScoreAnswer(
            model=outcome.model,
            data=[Score(index=index, score=score) for index, score in enumerate(scores)],
            usage=Usage(prompt_tokens=outcome.tokens, total_tokens=outcome.tokens),
        )


def as_texts(*given: str | Texts | None) -> Texts:
    """The first of these that is given, as a list."""
    texts = next((texts for texts in given if texts is not None), [])
    return [texts] if isinstance(texts, str) else texts


def vllm_error(status: int, message: str) -> dict[str, Any]:
    """The errors of vLLM."""
    return {"error": {"message": message, "type": "Error", "param": None, "code": status}}
