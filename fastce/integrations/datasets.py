"""Hugging Face datasets: `dataset.map(Scorer(...), batched=True)`, cached as the model's files and options say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastce.checkpoints.fingerprint import scoring_facts
from fastce.integrations.columns import ColumnScorer
from fastce.text_tokenizers import digest_of


class Scorer(ColumnScorer):
    """Adds a column of scores to batches, `score`, or `score_LABEL` for each of several labels.

        scored = dataset.map(Scorer("cross-encoder/ms-marco-MiniLM-L6-v2", ("query", "text")), batched=True)

    Datasets keeps what `map` gives, and finds it again by what it can see of the function: here the model's weights,
    config and tokenizer and how it scores, so that another model in the same folder is scored anew.
    """

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """The scores of a batch, by column."""
        return self.score(batch)

    def fingerprint(self) -> str:
        """Differs where the scores would."""
        return digest_of(scoring_facts(self.model), self.model.backend, self.text_columns)

    def __getstate__(self) -> dict[str, Any]:
        """With what tells its scores from others', which is what datasets looks at."""
        return {**super().__getstate__(), "digest": self.fingerprint()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != "digest"})
