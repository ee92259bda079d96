"""Text Embeddings Inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from fastce.server.messages import Outcome, Request, Text, Texts
from fastce.server.service import Ask

Pair = tuple[Text, Text]


class TruncatingRequest(Request):
    """What both of TEI's requests can say."""

    truncate: bool | None = Field(None, description="False refuses pairs that are too long; else they are cut.")
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None
    raw_scores: bool = Field(False, description="Logits in place of probabilities.")

    @property
    def wants_logits(self) -> bool:
        """See `Request`."""
        return self.raw_scores

    def asked(self, first: Sequence[str], second: Sequence[str]) -> Ask:
        """These pairs, cut or not as the request says."""
        side = self.truncation_direction
        return Ask(first, second, cuts=self.truncate is not False, cut_side=side.lower() if side else None)


class TeiRank(BaseModel):
    """A text's score."""

    index: int
    score: float
    text: str | None = None


class TeiRerankRequest(TruncatingRequest):
    """A query and texts to rank by it."""

    query: Text
    texts: Texts
    return_text: bool = False

    def ask(self) -> Ask:
        """See `Request`."""
        return self.asked([self.query] * len(self.texts), self.texts)

    def answer(self, outcome: Outcome) -> list[TeiRank]:
        """See `Request`."""
        texts = self.texts if self.return_text else [None] * len(self.texts)
        return [TeiRank(index=index, score=score, text=texts[index]) for index, score in outcome.ranked()]


class TeiPrediction(BaseModel):
    """A label's score."""

    score: float
    label: str


class TeiPredictRequest(TruncatingRequest):
    """A pair of texts, or a list of pairs."""

    inputs: Pair | Annotated[list[Pair], Field(min_length=1)] = Field(
        description="A pair of texts or a list of pairs. Single texts can't be scored: this server has a cross-encoder."
    )

    @property
    def pairs(self) -> list[Pair]:
        """The pairs, of which there may be one."""
        return [self.inputs] if isinstance(self.inputs, tuple) else self.inputs

    def ask(self) -> Ask:
        """See `Request`."""
        first, second = zip(*self.pairs, strict=True)
        return self.asked(first, second)

    def answer(self, outcome: Outcome) -> list[TeiPrediction] | list[list[TeiPrediction]]:
        """See `Request`."""
        answers = [
            [
                TeiPrediction(score=float(scores[at]), label=outcome.labels[at])
                for at in np.argsort(-logits, kind="stable")
            ]
            for logits, scores in zip(outcome.logits, outcome.scores, strict=True)
        ]
        return answers[0] if isinstance(self.inputs, tuple) else answers


TEI_KINDS = {401: "Unauthorized", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}


def tei_error(status: int, message: str) -> dict[str, Any]:
    """TEI's kind of error; what is not in its table is a request that is not valid."""
    return {"error": message, "error_type": TEI_KINDS.get(status, "Validation")}
