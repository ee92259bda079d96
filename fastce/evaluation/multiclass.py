"""Evaluators for models with one output per class."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from fastce.evaluation import metrics
from fastce.evaluation.evaluator import FloatEvaluator, PairEvaluator

F1_THRESHOLD = 0.5
"""What the score of a model with one output must exceed to count as class 1."""

F1_COLUMNS = {
    "f1": "Binary F1 score",
    "f1_macro": "Macro F1 score",
    "f1_micro": "Micro F1 score",
    "f1_weighted": "Weighted F1 score",
}


class CESoftmaxAccuracyEvaluator(FloatEvaluator, PairEvaluator):
    """Measures how often the highest score is that of the right class; returns that share.

    Args:
        sentence_pairs: Pairs of texts.
        labels: The class of each pair, counted from 0.
        name: What the data is called, for the log and the name of the CSV file.
        write_csv: Whether to keep the results in a CSV file, column Accuracy.

    Raises:
        TypeError: A pair is no pair of texts, or a label no number; the message says where.
        ValueError: There are no pairs, or the labels are too few, too many or not finite.
    """

    columns = metrics.ACCURACY_COLUMNS
    dimensions = (2,)
    main_metric = "accuracy"

    def __init__(self, sentence_pairs: Iterable[Any], labels: Iterable[Any], name: str = "", write_csv: bool = True):
        super().__init__(sentence_pairs, labels, name, write_csv)

    def evaluate(self, model: Any) -> dict[str, float]:
        """The accuracy."""
        return {"accuracy": metrics.accuracy(np.argmax(self.predict(model), axis=1), self.gold)}


class CEF1Evaluator(FloatEvaluator, PairEvaluator):
    """Measures F1 and returns it: that of class 1 where the labels are of two classes, else the mean over the classes.

    The predicted class is that of the highest score. Where the labels are of two classes the model may also have a
    single output; it then predicts class 1 for scores above 0.5.

    Args:
        sentence_pairs: Pairs of texts.
        labels: The class of each pair, counted from 0.
        batch_size: Passed to the model's `predict`.
        show_progress_bar: Whether to show a bar while the model predicts; None leaves it to the model.
        name: What the data is called, for the log and the name of the CSV file.
        write_csv: Whether to keep the results in a CSV file. Column Binary F1 score for two classes, else columns
            Macro F1 score, Micro F1 score, Weighted F1 score.

    Raises:
        TypeError: A pair is no pair of texts, or a label no number; the message says where.
        ValueError: There are no pairs, all labels are equal, or they are too few, too many or not finite.
    """

    dimensions: Collection[int] = (1, 2)

    def __init__(
        self,
        sentence_pairs: Iterable[Any],
        labels: Iterable[Any],
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = False,
        name: str = "",
        write_csv: bool = True,
    ):
        super().__init__(sentence_pairs, labels, name, write_csv)
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        classes = np.unique(self.gold)
        if len(classes) == 1:
            raise ValueError(f"labels: expected at least two different ones, got only {classes[0]}")
        self.averages = metrics.BINARY_AVERAGES if len(classes) == 2 else metrics.MULTICLASS_AVERAGES
        self.dimensions = (1, 2) if len(classes) == 2 else (2,)
        self.columns = {metric: F1_COLUMNS[metric] for metric in self.averages}
        self.main_metric = next(iter(self.averages))

    def predict_options(self) -> dict[str, Any]:
        """The arguments for the model's `predict`."""
        return {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}

    def evaluate(self, model: Any) -> dict[str, float]:
        """F1, once for each way to average over the classes."""
        scores = self.predict(model)
        classes = np.argmax(scores, axis=1) if scores.ndim == 2 else (scores > F1_THRESHOLD).astype(np.intp)
        return metrics.f1_metrics(classes, self.gold, self.averages)
