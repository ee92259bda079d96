"""What requests and answers of all dialects have in common."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from fastce.ranking import best
from fastce.server.service import Ask
from fastce.tokenization import well_formed

Text = Annotated[str, AfterValidator(well_formed)]
Texts = Annotated[list[Text], Field(min_length=1)]

SCORING_FIELDS = {"activation": "use_activation"} | {
    name: name
    for name in (
        "chat_template",
        "instruction",
        "max_tokens_per_doc",
        "max_tokens_per_query",
        "rank_fields",
        "raw_scores",
        "softmax",
        "truncate",
        "truncate_prompt_tokens",
        "truncation_direction",
        "truncation_side",
        "use_activation",
    )
}
"""Words that change scores in one dialect or another, and the fields that they set: where a route lacks the field,
the word is refused rather than ignored."""


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

    model: Text | None = Field(None, description="Must be a name of the served model, where it is given.")

    @model_validator(mode="before")
    @classmethod
    def given(cls, fields: Any) -> Any:
        """The fields without those that are null, which are ones that were left out.

        Raises:
            ValueError: One would change scores where it is known, and is not known here.
        """
        if not isinstance(fields, dict):
            return fields
        given = {name: value for name, value in fields.items() if value is not None}
        words = sorted(SCORING_FIELDS.keys() & given.keys())
        if unknown := [word for word in words if SCORING_FIELDS[word] not in cls.model_fields]:
            raise ValueError(f"{', '.join(unknown)}: not known to this route, and must not be ignored")
        return given

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


class PairsRequest(Request):
    """What requests of Cohere, Jina and vLLM have in common."""

    max_tokens_per_doc: int | None = Field(None, ge=0, description="Must leave what the model reads as it is; or 0.")
    truncate_prompt_tokens: int | None = Field(None, ge=-1, description="Tokens of a pair at most; -1: the model's.")
    use_activation: bool | None = Field(
        None,
        validation_alias=AliasChoices("use_activation", "activation"),
        description="False gives logits in place of probabilities.",
    )
    raw_scores: bool = Field(False, description="True gives logits in place of probabilities.")

    @property
    def wants_logits(self) -> bool:
        """See `Request`."""
        return self.raw_scores or self.use_activation is False

    def asked(self, first: Sequence[str], second: Sequence[str]) -> Ask:
        """These pairs, as long as the request says."""
        most = max(0, self.truncate_prompt_tokens or 0) or None
        return Ask(first, second, max_length=most, document_tokens=self.max_tokens_per_doc or None)


class Usage(BaseModel):
    """What Jina and vLLM count."""

    prompt_tokens: int
    total_tokens: int


def identifier() -> str:
    """A name for an answer."""
    return str(uuid.uuid4())
