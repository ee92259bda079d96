"""The evaluators for models that rank documents for a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastce import legacy
from fastce.checks import check_positive, check_text, describe
from fastce.evaluation import metrics
from fastce.evaluation.evaluator import DictionaryEvaluator, FloatEvaluator, predicted_scores
from fastce.inputs import check_texts


class Sample(NamedTuple):
    """A query and the documents that a model ranks for it.

    Attributes:
        query: The query.
        documents: The documents.
        is_relevant: Which of them answer the query, `[num_documents]`.
        first_stage: The same for the ranking that the model is to improve, best document first; None without one.
    """

    query: str
    documents: list[str]
    is_relevant: NDArray[np.bool_]
    first_stage: NDArray[np.bool_] | None = None


class CERerankingEvaluator(FloatEvaluator):
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

    dimensions = (1,)

    def __init__(self, samples: Any, mrr_at_k: int = 10, name: str = "", write_csv: bool = True):
        super().__init__(name, write_csv)
        self.mrr_at_k = check_positive(mrr_at_k, "mrr_at_k")
        self.main_metric = f"mrr@{self.mrr_at_k}"
        self.columns = {self.main_metric: f"MRR@{self.mrr_at_k}"}
        found = [read_labelled(sample, place) for place, sample in named_samples(samples)]
        self.samples = [sample for sample in found if sample.is_relevant.any() and not sample.is_relevant.all()]
        if not self.samples:
            raise ValueError(f"samples: none of {len(found)} has both positive and negative documents")

    def evaluate(self, model: Any) -> dict[str, float]:
        """The mean reciprocal rank."""
        scores = score_samples(model, self.samples, self.predict_options())
        ranks = [
            metrics.reciprocal_rank(part, sample.is_relevant, self.mrr_at_k, wins_ties=True)
            for part, sample in zip(scores, self.samples, strict=True)
        ]
        return {self.main_metric: float(np.mean(ranks))}


class CrossEncoderRerankingEvaluator(DictionaryEvaluator):
    """Measures rankings; returns the means of `map`, `mrr@k` and `ndcg@k`, the primary metric.

    Where samples have a first-stage ranking, also its own `base_map`, `base_mrr@k` and `base_ndcg@k`, for which
    positive documents that it has missed come last; it counts as 0 where it has found none. A positive document ranks
    behind a negative one of the same score. All samples are scored in one `predict`.

    Args:
        samples: A list, or the values of a dict, of mappings with the keys query: a text; positive: texts, or one
            text; and either negative: texts, or documents: texts as a first stage has ranked them, positive ones
            among them.
        at_k: Only the first so many documents count, but for `map`.
        always_rerank_positives: Whether the model also ranks the positive texts that `documents` misses.
        name: What the data is called, for the keys, the log and the name of the CSV file.
        prompt_name: Passed to the model's `predict`.
        batch_size: Passed to the model's `predict`.
        show_progress_bar: Whether to show a bar while the model predicts; None leaves it to the model.
        write_csv: Whether to keep the results in a CSV file, columns MAP, MRR@k and NDCG@k.
        mrr_at_k: The older name of `at_k`.

    Raises:
        TypeError: A sample is no mapping, or something in it is no text; the message says where.
        ValueError: A sample lacks a key or has both kinds of documents, or there is no sample; the message says where.
    """

    dimensions = (1,)

    def __init__(
        self,
        samples: Any,
        at_k: int = 10,
        always_rerank_positives: bool = True,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 64,
        show_progress_bar: bool | None = False,
        write_csv: bool = True,
        mrr_at_k: int | None = None,
    ):
        super().__init__(name, write_csv)
        if mrr_at_k is not None:
            legacy.deprecated("CrossEncoderRerankingEvaluator: mrr_at_k is now called at_k", stacklevel=2)
            at_k = mrr_at_k
        self.at_k = check_positive(at_k, "at_k")
        self.always_rerank_positives = always_rerank_positives
        self.prompt_name = prompt_name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.csv_file = self.csv_file.replace("_results.csv", f"_results_@{self.at_k}.csv")
        self.columns = {"map": "MAP", f"mrr@{self.at_k}": f"MRR@{self.at_k}", f"ndcg@{self.at_k}": f"NDCG@{self.at_k}"}
        self.primary_metric = self.key(f"ndcg@{self.at_k}")
        self.samples = [
            read_candidates(sample, place, always_rerank_positives) for place, sample in named_samples(samples)
        ]
        if not self.samples:
            raise ValueError("samples: expected at least one, got none")

    def evaluate(self, model: Any) -> dict[str, float]:
        """The means over all samples."""
        scores = score_samples(model, self.samples, self.predict_options())
        results = mean_metrics(
            [
                metrics.ranking_metrics(part, sample.is_relevant, self.at_k)
                for part, sample in zip(scores, self.samples, strict=True)
            ]
        )
        rankings = [sample.first_stage for sample in self.samples if sample.first_stage is not None]
        if rankings:
            base = mean_metrics(
                [metrics.ranking_metrics(-np.arange(len(ranking)), ranking, self.at_k) for ranking in rankings]
            )
            results |= {f"base_{metric}": value for metric, value in base.items()}
        return results


def score_samples(model: Any, samples: Sequence[Sample], options: Mapping[str, Any]) -> list[NDArray[Any]]:
    """Scores all documents in one `predict`, none of samples without a relevant one; for each sample `[num_documents]`.

    Args:
        model: Anything with the `predict` of a CrossEncoder.
        samples: What to score.
        options: More arguments for `predict`.
    """
    scored = [sample.documents if sample.is_relevant.any() else [] for sample in samples]
    pairs = [(sample.query, document) for sample, part in zip(samples, scored, strict=True) for document in part]
    scores = predicted_scores(model, pairs, {1}, options) if pairs else np.empty(0)
    return np.split(scores, np.cumsum([len(part) for part in scored])[:-1])


def mean_metrics(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric."""
    return {metric: float(np.mean([result[metric] for result in results])) for metric in results[0]}


def named_samples(samples: Any) -> Iterable[tuple[str, Any]]:
    """The caller's samples, each with its place for error messages."""
    named: Iterable[tuple[Any, Any]] = samples.items() if isinstance(samples, Mapping) else enumerate(samples)
    return ((f"samples[{key!r}]", sample) for key, sample in named)


def read_labelled(sample: Any, place: str) -> Sample:
    """Reads a sample with the keys query, positive and negative, all of them lists.

    Raises:
        TypeError: It is no mapping, or something in it is no text; the message says where.
        ValueError: It lacks a key.
    """
    check_keys(sample, ("query", "positive", "negative"), place)
    return from_parts(
        sample["query"],
        unordered_texts(sample["positive"], f"{place}['positive']"),
        unordered_texts(sample["negative"], f"{place}['negative']"),
    )


def read_candidates(sample: Any, place: str, always_rerank_positives: bool) -> Sample:
    """Reads a sample with the keys query, positive and either negative or documents.

    Raises:
        TypeError: It is no mapping, or something in it is no text; the message says where.
        ValueError: It lacks a key, or has both kinds of documents.
    """
    check_keys(sample, ("query", "positive"), place)
    if ("negative" in sample) == ("documents" in sample):
        number = "both" if "negative" in sample else "neither"
        raise ValueError(f"{place}: expected one of the keys negative and documents, got {number}")
    positive = sample["positive"]
    positive = [positive] if isinstance(positive, str) else unordered_texts(positive, f"{place}['positive']")
    if "negative" in sample:
        return from_parts(sample["query"], positive, unordered_texts(sample["negative"], f"{place}['negative']"))
    documents = check_texts(sample["documents"], f"{place}['documents']")
    known = set(positive)
    is_relevant = np.array([document in known for document in documents], dtype=np.bool_)
    missed = max(len(positive) - int(is_relevant.sum()), 0) if is_relevant.any() else 0
    first_stage = np.append(is_relevant, np.ones(missed, dtype=np.bool_))
    if always_rerank_positives:
        negative = [document for document in documents if document not in known]
        return from_parts(sample["query"], positive, negative)._replace(first_stage=first_stage)
    return Sample(sample["query"], documents, is_relevant, first_stage)


def unordered_texts(texts: Any, place: str) -> list[str]:
    """Texts whose order makes no difference, which may be a set; see `check_texts`."""
    return check_texts(list(texts) if isinstance(texts, Set) else texts, place)


def from_parts(query: str, positive: list[str], negative: list[str]) -> Sample:
    """A sample of positive documents, then negative ones."""
    return Sample(query, positive + negative, np.arange(len(positive) + len(negative)) < len(positive))


def check_keys(sample: Any, keys: Sequence[str], place: str) -> None:
    """Raises TypeError or ValueError unless a sample is a mapping with these keys and a text for the query."""
    if not isinstance(sample, Mapping):
        raise TypeError(f"{place}: expected a mapping, got {describe(sample)}")
    for key in keys:
        if key not in sample:
            raise ValueError(f"{place}: expected the keys {', '.join(keys)}, got no {key!r}")
    check_text(sample["query"], f"{place}['query']")
