"""Evaluators for models with one output and labels that are 0 or 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastce.evaluation.evaluator import PairEvaluator, predicted_scores
from fastce.evaluation.thresholds import best_accuracy, best_f1


class CEBinaryAccuracyEvaluator(PairEvaluator):
    """Measures how many pairs a fixed threshold on the scores judges rightly; returns that share.

    Args:
        sentence_pairs: Pairs of texts.
        labels: 1 for pairs that should score above the threshold, 0 for the others.
        name: What the data is called, for the log and the name of the CSV file.
        threshold: Pairs that score above it count as 1, the others as 0.
        write_csv: Whether to keep the results in a CSV file, column Accuracy.

    Raises:
        TypeError: A pair is no pair of texts, or a label no number; the message says where.
        ValueError: There are no pairs, or the labels are too few, too many or not finite.
    """

    main_result = "Accuracy"

    def __init__(
        self,
        sentence_pairs: Iterable[Any],
        labels: Iterable[Any],
        name: str = "",
        threshold: float = 0.5,
        write_csv: bool = True,
    ):
        super().__init__(sentence_pairs, labels, name, write_csv)
        self.threshold = threshold

    def evaluate(self, model: Any) -> dict[str, float]:
        """The accuracy."""
        scores = predicted_scores(model, self.sentence_pairs, {1})
        return {"Accuracy": float(np.mean((scores > self.threshold) == self.gold))}


class CEBinaryClassificationEvaluator(PairEvaluator):
    """Measures how well the scores separate label 1 from label 0; returns the average precision.

    The accuracy and the F1 are those at the threshold that is best for them; see `fastce.evaluation.thresholds`.

    Args:
        sentence_pairs: Pairs of texts.
        labels: 1 for pairs that should score high, 0 for pairs that should score low.
        name: What the data is called, for the log and the name of the CSV file.
        show_progress_bar: Whether to show a bar while the model predicts; None leaves it to the model.
        write_csv: Whether to keep the results in a CSV file, columns Accuracy, Accuracy_Threshold, F1, F1_Threshold,
            Precision, Recall, Average_Precision.

    Raises:
        TypeError: A pair is no pair of texts, or a label no number; the message says where.
        ValueError: There are no pairs, or the labels are too few, too many or not 0 or 1.
    """

    main_result = "Average_Precision"

    def __init__(
        self,
        sentence_pairs: Iterable[Any],
        labels: Iterable[Any],
        name: str = "",
        show_progress_bar: bool | None = False,
        write_csv: bool = True,
    ):
        super().__init__(sentence_pairs, labels, name, write_csv)
        self.show_progress_bar = show_progress_bar
        others = np.flatnonzero((self.gold != 0) & (self.gold != 1))
        if len(others):
            raise ValueError(f"labels[{others[0]}]: expected 0 or 1, got {self.gold[others[0]]}")

    def evaluate(self, model: Any) -> dict[str, float]:
        """The accuracy and F1 at their best thresholds, and the average precision."""
        from sklearn.metrics import average_precision_score

        scores = predicted_scores(model, self.sentence_pairs, {1}, show_progress_bar=self.show_progress_bar)
        accuracy, accuracy_threshold = best_accuracy(scores, self.gold)
        f1, precision, recall, f1_threshold = best_f1(scores, self.gold)
        return {
            "Accuracy": accuracy,
            "Accuracy_Threshold": accuracy_threshold,
            "F1": f1,
            "F1_Threshold": f1_threshold,
            "Precision": precision,
            "Recall": recall,
            "Average_Precision": float(average_precision_score(self.gold, scores)),
        }
