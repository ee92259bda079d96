"""Scores columns of texts: what engines that share out tables among machines call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastce.checks import check_text
from fastce.corpus.readers.fields import Names
from fastce.options import ModelOptions
from fastce.packing import MAX_BATCH_TOKENS

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

SCORE = "score"


class ColumnScorer:
    """Scores the pairs of two columns. Small to pickle, loads its model where and when it is first used.

    Args:
        model: What a model is loaded with, its directory or Hub id, or a model; a trained or edited one carries its
            weights along.
        text_columns: The columns of first and second texts.
        max_batch_tokens: See `CrossEncoder.predict`.
    """

    def __init__(
        self,
        model: CrossEncoder | ModelOptions | str,
        text_columns: Names,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ):
        self.source = ModelOptions(model) if isinstance(model, str) else model
        self.text_columns = text_columns
        self.max_batch_tokens = max_batch_tokens
        self._loaded: CrossEncoder | None = None

    @property
    def model(self) -> CrossEncoder:
        """The model, loaded now if it has not been."""
        if self._loaded is None:
            options = self.source
            if isinstance(options, ModelOptions) and options.num_threads is None:
                options = replace(options, num_threads=self.num_threads())
            self._loaded = options.load() if isinstance(options, ModelOptions) else options
        return self._loaded

    def num_threads(self) -> int | None:
        """CPU threads, where neither options nor environment say how many; None: all."""
        return None

    def stream(self, batches: Iterable[Mapping[str, Sequence[Any]]]) -> Iterator[dict[str, np.ndarray]]:
        """Scores batches of columns, each while the next one is tokenised.

        Args:
            batches: Names of columns to their values; others than the two may be there.

        Yields:
            For each batch `score`, float32 `[num_rows]`, or for several labels `score_LABEL` each.

        Raises:
            ValueError: A column is missing.
            TypeError: A value is not a text; the message says which.
        """
        windows = (self._pairs(batch) for batch in batches)
        for scores in self.model.stream(windows, max_batch_tokens=self.max_batch_tokens):
            yield self._columns(scores)

    def score(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """The scores of one batch; see `stream`."""
        return self._columns(self.model.predict(self._pairs(batch), max_batch_tokens=self.max_batch_tokens))

    def score_names(self) -> list[str]:
        """The names of the columns of scores."""
        if self.model.num_labels == 1:
            return [SCORE]
        names = getattr(self.model.config, "id2label", None) or {}
        return [f"{SCORE}_{names.get(number, number)}" for number in range(self.model.num_labels)]

    def _pairs(self, batch: Mapping[str, Sequence[Any]]) -> list[tuple[str, str]]:
        for name in self.text_columns:
            if name not in batch:
                raise ValueError(f"text_columns: no column is called {name!r}, there are {', '.join(batch)}")
            for row, text in enumerate(batch[name]):
                check_text(text, f"{name}[{row}]")
        first, second = (batch[name] for name in self.text_columns)
        return list(zip(map(str, first), map(str, second), strict=True))

    def _columns(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        names = self.score_names()
        rows = scores.reshape(-1, len(names))
        return {name: np.ascontiguousarray(rows[:, number]) for number, name in enumerate(names)}

    def __getstate__(self) -> dict[str, Any]:
        """Without a model that was loaded from options."""
        return {**vars(self), "_loaded": None}


def says_threads() -> bool:
    """Whether the environment says how many threads there shall be."""
    return "FASTCE_NUM_THREADS" in os.environ
