"""Evaluators for models with one output and labels that are 0 or 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastce.evaluation import metrics
from fastce.evaluation.evaluator import FloatEvaluator, PairEvaluator, check_binary
from fastce.evaluation.thresholds import cuts_between_pairs


class CEBinaryAccuracyEvaluator(FloatEvaluator, PairEvaluator):
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

    columns = metrics.ACCURACY_COLUMNS
    dimensions = (1,)
    main_metric = "accuracy"

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
        return {"accuracy": metrics.accuracy(self.predict(model) > self.threshold, self.gold)}


class CEBinaryClassificationEvaluator(FloatEvaluator, PairEvaluator):
    """Measures how well the scores separate label 1 from label 0; returns the average precision.

    The accuracy and the F1 are those at the threshold that is best for them, of those that sentence-transformers 2.2
    considers; see `fastce.evaluation.thresholds`.

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

    columns = metrics.BINARY_COLUMNS
    dimensions = (1,)
    main_metric = "average_precision"

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
        check_binary(self.gold)

    def predict_options(self) -> dict[str, Any]:
        """The arguments for the model's `predict`."""
        return {"show_progress_bar": self.show_progress_bar}

    def evaluate(self, model: Any) -> dict[str, float]:
        """The accuracy and F1 at their best thresholds, and the average precision."""
        return metrics.binary_metrics(self.predict(model), self.gold, cuts_between_pairs)
