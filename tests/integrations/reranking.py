"""What the tests of frameworks rerank, and what must come of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from tiny_models import SENTENCES

from fastce import CrossEncoder

QUERY = "Is there a train to the sea?"
TEXTS = [text for text in SENTENCES if text and text != QUERY]


def scores_of(model_name: str, query: str = QUERY, texts: list[str] = TEXTS, **arguments: Any) -> list[float]:
    """fastce's scores of texts."""
    scores: list[float] = CrossEncoder(model_name).predict([(query, text) for text in texts], **arguments).tolist()
    return scores


def ranked(model_name: str, query: str = QUERY, texts: list[str] = TEXTS, **arguments: Any) -> list[tuple[str, float]]:
    """Texts with fastce's scores, best first."""
    scores = scores_of(model_name, query, texts, **arguments)
    return [(texts[number], scores[number]) for number in np.argsort(-np.array(scores), kind="stable")]
