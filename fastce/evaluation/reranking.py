"""The evaluator for models that rank documents for a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastce.evaluation.evaluator import Evaluator, predicted_scores
from fastce.inputs import check_positive, check_text, check_texts, describe


class Sample(NamedTuple):
    """A query, the documents that answer it, and documents that do not."""

    query: str
    positive: list[str]
    negative: list[str]

    def pairs(self) -> list[tuple[str, str]]:
        """The query with each document, positive ones first."""
        return [(self.query, document) for document in self.positive + self.negative]


class CERerankingEvaluator(Evaluator):
    """Measures how early the first positive document comes when the model ranks; returns the mean reciprocal rank.

    A positive document ranks before a negative one of the same score. All samples are scored in one `predict`.

    Args:
        samples: A list, or the values of a dict, of `{"query": text, "positive": texts, "negative": texts}`; samples
            without positive or without negative documents are left out.
        mrr_at_k: A sample counts as 0 where no positive document is among the first so many.
        name: What the data is called, for the log and the name of the CSV file.
        write_csv: Whether to keep the results in a CSV file, column MRR@k.

    Raises:
        TypeError: A sample is no mapping, or something in it is no text; the message says where.
        ValueError: A sample lacks a key, or no sample is left; the message says where.
    """

    def __init__(self, samples: Any, mrr_at_k: int = 10, name: str = "", write_csv: bool = True):
        super().__init__(name, write_csv)
        self.mrr_at_k = check_positive(mrr_at_k, "mrr_at_k")
        self.main_result = f"MRR@{self.mrr_at_k}"
        named: Iterable[tuple[Any, Any]] = samples.items() if isinstance(samples, Mapping) else enumerate(samples)
        found = [read_sample(sample, f"samples[{key!r}]") for key, sample in named]
        self.samples = [sample for sample in found if sample.positive and sample.negative]
        if not self.samples:
            raise ValueError(f"samples: none of {len(found)} has both positive and negative documents")

    def evaluate(self, model: Any) -> dict[str, float]:
        """The mean reciprocal rank."""
        pairs = [pair for sample in self.samples for pair in sample.pairs()]
        scores = predicted_scores(model, pairs, {1})
        sizes = [len(sample.positive) + len(sample.negative) for sample in self.samples]
        parts = np.split(scores, np.cumsum(sizes)[:-1])
        ranks = np.array(
            [first_rank(part, len(sample.positive)) for part, sample in zip(parts, self.samples, strict=True)]
        )
        return {self.main_result: float(np.mean(np.where(ranks <= self.mrr_at_k, 1 / ranks, 0.0)))}


def first_rank(scores: NDArray[Any], num_positive: int) -> int:
    """The rank of the best positive document, counted from 1.

    Args:
        scores: `[num_documents]`, positive documents first.
        num_positive: How many documents are positive.
    """
    return 1 + int(np.count_nonzero(scores[num_positive:] > scores[:num_positive].max()))


def read_sample(sample: Any, place: str) -> Sample:
    """Reads one sample of the caller's.

    Raises:
        TypeError: It is no mapping, or something in it is no text; the message says where.
        ValueError: It lacks a key.
    """
    if not isinstance(sample, Mapping):
        raise TypeError(f"{place}: expected a mapping, got {describe(sample)}")
    for key in Sample._fields:
        if key not in sample:
            raise ValueError(f"{place}: expected the keys {', '.join(Sample._fields)}, got no {key!r}")
    check_text(sample["query"], f"{place}['query']")
    return Sample(
        sample["query"],
        check_texts(sample["positive"], f"{place}['positive']"),
        check_texts(sample["negative"], f"{place}['negative']"),
    )
