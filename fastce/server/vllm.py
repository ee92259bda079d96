"""The scores of vLLM."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from fastce.server.messages import Outcome, PairsRequest, Text, Texts, Usage, identifier
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


class ScoreRequest(PairsRequest):
    """A text and others, or two lists of texts, pair by pair."""

    text_1: Text | Texts | None = Field(None, description="A text, or as many as of the others.")
    text_2: Text | Texts | None = None
    queries: Text | Texts | None = Field(None, description="text_1 by another name.")
    documents: Text | Texts | None = Field(None, description="text_2 by another name.")

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
        return self.asked(*self.sides)

    def answer(self, outcome: Outcome) -> ScoreAnswer:
        """See `Request`."""
        scores = outcome.scores[:, 0].tolist()
        return ScoreAnswer(
            model=outcome.model,
            data=[Score(index=index, score=score) for index, score in enumerate(scores)],
            usage=Usage(prompt_tokens=outcome.tokens, total_tokens=outcome.tokens),
        )


def as_texts(*given: str | Texts | None) -> Texts:
    """That of these which is given, as a list.

    Raises:
        ValueError: Both names of it are used.
    """
    used = [texts for texts in given if texts is not None]
    if len(used) > 1:
        raise ValueError("text_1 and queries are names of the same, as are text_2 and documents; got both")
    texts = next(iter(used), [])
    return [texts] if isinstance(texts, str) else texts


def vllm_error(status: int, message: str) -> dict[str, Any]:
    """The errors of vLLM."""
    return {"error": {"message": message, "type": "Error", "param": None, "code": status}}
