"""The evaluator for models that predict classes, be it with one output or with one for each class."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from fastce.evaluation import metrics
from fastce.evaluation.evaluator import DictionaryEvaluator, PairEvaluator, check_binary
from fastce.evaluation.thresholds import cuts_between_scores

MULTICLASS_COLUMNS = {"f1_macro": "Macro_F1", "f1_micro": "Micro_F1", "f1_weighted": "Weighted_F1"}


class CrossEncoderClassificationEvaluator(DictionaryEvaluator, PairEvaluator):
    """Measures how well a model tells classes apart.

    For a model with one output: `accuracy`, `accuracy_threshold`, `f1`, `f1_threshold`, `precision`, `recall` and
    `average_precision`, the primary metric. The thresholds are the best ones of those that sentence-transformers 6.2
    considers; see `fastce.evaluation.thresholds`.

    For a model with several: `f1_macro`, the primary metric, `f1_micro` and `f1_weighted`, where the predicted class
    is that of the highest score.

    Args:
        sentence_pairs: Pairs of texts.
        labels: The class of each pair, counted from 0; for a model with one output, 1 for pairs that should score
            high and 0 for the others.
        name: What the data is called, for the keys, the log and the name of the CSV file.
        prompt_name: Passed to the model's `predict`.
        batch_size: Passed to the model's `predict`.
        show_progress_bar: Whether to show a bar while the model predicts; None leaves it to the model.
        write_csv: Whether to keep the results in a CSV file. Columns Accuracy, Accuracy_Threshold, F1, F1_Threshold,
            Precision, Recall, Average_Precision for one output, else Macro_F1, Micro_F1, Weighted_F1.

    Raises:
        TypeError: A pair is no pair of texts, or a label no number; the message says where.
        ValueError: There are no pairs, or the labels are too few, too many or no whole numbers from 0; in a call, the
            model has one output and a label is neither 0 nor 1.
    """

    dimensions: Collection[int] = (1, 2)

    def __init__(
        self,
        sentence_pairs: Iterable[Any],
        labels: Iterable[Any],
        *,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
    ):
        super().__init__(sentence_pairs, labels, name, write_csv)
        others = np.flatnonzero((self.gold < 0) | (self.gold != np.floor(self.gold)))
        if len(others):
            raise ValueError(f"labels[{others[0]}]: expected a class, counted from 0, got {self.gold[others[0]]}")
        self.gold = self.gold.astype(np.intp)
        self.prompt_name = prompt_name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar

    def check_model(self, num_labels: int) -> None:
        """Raises ValueError where the labels are those of several classes and the model has one label."""
        if num_labels == 1:
            check_binary(self.gold)

    def evaluate(self, model: Any) -> dict[str, float]:
        """The metrics for a model's number of outputs."""
        self.check_model(model.num_labels)
        self.dimensions = (min(model.num_labels, 2),)
        if model.num_labels == 1:
            self.columns, self.primary_metric = metrics.BINARY_COLUMNS, self.key("average_precision")
            return metrics.binary_metrics(self.predict(model), self.gold, cuts_between_scores)
        self.columns, self.primary_metric = MULTICLASS_COLUMNS, self.key("f1_macro")
        classes = np.argmax(self.predict(model), axis=1)
        return metrics.f1_metrics(classes, self.gold, metrics.MULTICLASS_AVERAGES)
