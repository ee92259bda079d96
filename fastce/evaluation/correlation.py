"""The evaluator for models that predict a similarity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastce.evaluation.evaluator import PairEvaluator, predicted_scores


class CECorrelationEvaluator(PairEvaluator):
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

    main_result = "Spearman_Correlation"

    def __init__(self, sentence_pairs: Iterable[Any], scores: Iterable[Any], name: str = "", write_csv: bool = True):
        super().__init__(sentence_pairs, scores, name, write_csv, gold_name="scores")
        if len(self.sentence_pairs) < 2:
            raise ValueError("sentence_pairs: expected at least two pairs, got one")

    def evaluate(self, model: Any) -> dict[str, float]:
        """Both correlations, NaN where all scores are equal."""
        from scipy.stats import pearsonr, spearmanr

        predicted = predicted_scores(model, self.sentence_pairs, {1})
        return {
            "Pearson_Correlation": float(pearsonr(self.gold, predicted)[0]),
            "Spearman_Correlation": float(spearmanr(self.gold, predicted)[0]),
        }
