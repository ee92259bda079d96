from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np


class StubModel:
    """Predicts given scores, whatever it is asked, and remembers how it was asked."""

    def __init__(self, scores: Any):
        self.scores = scores
        self.num_labels = 1
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)
        self.calls: list[tuple[list[Any], dict[str, Any]]] = []

    def predict(self, sentences: list[Any], **options: Any) -> Any:
        self.calls.append((sentences, options))
        return np.asarray(self.scores)


class LookupModel:
    """Predicts the score of each pair from a table."""

    def __init__(self, table: dict[tuple[str, str], float]):
        self.table = table
        self.num_labels = 1
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def predict(self, sentences: list[Any], **_: Any) -> Any:
        return np.array([self.table[tuple(pair)] for pair in sentences], dtype=np.float32)


def make_pairs(number: int) -> list[list[str]]:
    return [[f"first {index}", f"second {index}"] for index in range(number)]
