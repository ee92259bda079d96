"""What requests and answers of all dialects have in common."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from fastce.ranking import best
from fastce.server.service import Ask

Texts = Annotated[list[str], Field(min_length=1)]
PairTokens = Annotated[int | None, Field(ge=-1, description="Tokens of a pair at most; -1: the model's.")]
UseActivation = Annotated[
    bool | None,
    Field(
        validation_alias=AliasChoices("use_activation", "activation"),
        description="False gives logits in place of probabilities.",
    ),
]


@dataclass(frozen=True)
class Outcome:
    """The scores of a request.

    Attributes:
        logits: float32 `[num_pairs, num_labels]`.
        scores: What is told, float32 of the same shape.
        tokens: Tokens of all pairs.
        model: The model's name.
        labels: What its labels are called, `[num_labels]`.
    """

    logits: np.ndarray
    scores: np.ndarray
    tokens: int
    model: str
    labels: list[str]

    def ranked(self, top: int | None = None) -> list[tuple[int, float]]:
        """The pairs' numbers and scores, best first; logits decide, which differ where probabilities are all but 1."""
        order = best(self.logits[:, 0], np.zeros(len(self.logits)), top)
        return list(zip(order.tolist(), self.scores[order, 0].tolist(), strict=True))


class Request(BaseModel):
    """What requests of all dialects have in common."""

    model_config = ConfigDict(protected_namespaces=())

    model: str | None = Field(None, description="Must be a name of the served model, where it is given.")

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, fields: Any) -> Any:
        """A field that is null is one that was left out."""
        return (
            {name: value for name, value in fields.items() if value is not None} if isinstance(fields, dict) else fields
        )

    def ask(self) -> Ask:
        """The pairs to be scored."""
        raise NotImplementedError

    @property
    def wants_logits(self) -> bool:
        """Whether logits are to be told in place of probabilities."""
        return False

    def answer(self, outcome: Outcome) -> Any:
        """The answer, as a model of pydantic's or a list of them."""
        raise NotImplementedError


class Usage(BaseModel):
    """What Jina and vLLM count."""

    prompt_tokens: int
    total_tokens: int


def identifier() -> str:
    """A name for an answer."""
    return str(uuid.uuid4())


def chosen_length(tokens: int | None) -> int | None:
    """The number of tokens that a pair is cut to, where it is one."""
    return tokens if tokens and tokens > 0 else None
