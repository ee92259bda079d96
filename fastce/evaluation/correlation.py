"""The evaluators for models that predict a similarity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastce.evaluation import metrics
from fastce.evaluation.evaluator import DictionaryEvaluator, FloatEvaluator, PairEvaluator


class CorrelationEvaluator(PairEvaluator):
    """What both evaluators share; `CECorrelationEvaluator` describes the arguments."""

    columns = metrics.CORRELATION_COLUMNS
    dimensions = (1,)

    def __init__(self, sentence_pairs: Iterable[Any], scores: Iterable[Any], name: str, write_csv: bool):
        super().__init__(sentence_pairs, scores, name, write_csv, gold_name="scores")
        if len(self.sentence_pairs) < 2:
            raise ValueError("sentence_pairs: expected at least two pairs, got one")

    def evaluate(self, model: Any) -> dict[str, float]:
        """Both correlations."""
        return metrics.correlations(self.predict(model), self.gold)


class CECorrelationEvaluator(FloatEvaluator, CorrelationEvaluator):
    """Measures how the model's scores correlate with given ones; returns Spearman's rank correlation.

    Args:
        sentence_pairs: Pairs of texts, at least two.
        scores: The score that belongs to each pair, on any scale.
        name: What the data is called, for the log and the name of the CSV file.
        write_csv: Whether to keep the results in a CSV file, columns Pearson_Correlation and Spearman_Correlation.

    Raises:
        TypeError: A pair is no pair of texts, or a score no number; the message says where.
        ValueError: There are less than two pairs, or the scores are too few, too many or not finite.
    """

    main_metric = "spearman"

    def __init__(self, sentence_pairs: Iterable[Any], scores: Iterable[Any], name: str = "", write_csv: bool = True):
        super().__init__(sentence_pairs, scores, name, write_csv)


class CrossEncoderCorrelationEvaluator(DictionaryEvaluator, CorrelationEvaluator):
    """Measures how the model's scores correlate with given ones; returns `pearson` and `spearman`, the primary metric.

    Args:
        sentence_pairs: Pairs of texts, at least two.
        scores: The score that belongs to each pair, on any scale.
        name: What the data is called, for the keys, the log and the name of the CSV file.
        prompt_name: Passed to the model's `predict`.
        batch_size: Passed to the model's `predict`.
        show_progress_bar: Whether to show a bar while the model predicts; None leaves it to the model.
        write_csv: Whether to keep the results in a CSV file, columns Pearson_Correlation and Spearman_Correlation.

    Raises:
        TypeError: A pair is no pair of texts, or a score no number; the message says where.
        ValueError: There are less than two pairs, or the scores are too few, too many or not finite.
    """

    def __init__(
        self,
        sentence_pairs: Iterable[Any],
        scores: Iterable[Any],
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
    ):
        super().__init__(sentence_pairs, scores, name, write_csv)
        self.prompt_name = prompt_name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.primary_metric = self.key("spearman")
