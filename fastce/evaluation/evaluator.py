"""What all evaluators share: asking the model, logging the results, keeping them in a CSV file."""

from __future__ import annotations

import csv
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastce.checks import describe
from fastce.inputs import check_elements, check_pair

if TYPE_CHECKING:
    from typing import Self

    from fastce.training.input_example import InputExample

logger = logging.getLogger(__name__)

NUMBER_KINDS = "biuf"
"""What NumPy calls the kinds of dtype that hold booleans, integers and floats."""


class Evaluator(ABC):
    """Measures a model.

    Args:
        name: What the data is called, for the log and the name of the CSV file.
        write_csv: Whether to keep the results in a CSV file.

    Attributes:
        columns: The CSV column of each metric that is kept there, in order.
        dimensions: How many dimensions the model's scores may have: 1 for models with one label, 2 for those with
            several.
        csv_file: The name of the CSV file.
    """

    columns: Mapping[str, str]
    dimensions: Collection[int]

    def __init__(self, name: str, write_csv: bool):
        self.name = name
        self.write_csv = write_csv
        self.csv_file = f"{type(self).__name__}{'_' + name if name else ''}_results.csv"

    @abstractmethod
    def evaluate(self, model: Any) -> dict[str, float]:
        """The metrics by name."""

    def predict_options(self) -> dict[str, Any]:
        """The arguments for the model's `predict`."""
        return {"show_progress_bar": False}

    def check_model(self, num_labels: int) -> None:
        """Raises ValueError where a model with so many labels can't be measured; `fit` asks beforehand."""
        if min(num_labels, 2) not in self.dimensions:
            wanted = "1 label" if num_labels > 1 else "several labels"
            raise ValueError(f"{type(self).__name__}: expected a model with {wanted}, got one with {num_labels}")

    def measure(
        self, model: Any, output_path: str | os.PathLike[str] | None, epoch: int, steps: int
    ) -> dict[str, float]:
        """Measures a model, logs the metrics and appends them to the CSV file; see `__call__`."""
        results = self.evaluate(model)
        logger.info(
            "%s: %s",
            " ".join(filter(None, (type(self).__name__, self.name, describe_progress(epoch, steps)))),
            ", ".join(f"{self.columns.get(metric, metric)} {value:.4f}" for metric, value in results.items()),
        )
        if output_path is not None and self.write_csv:
            kept = {column: results[metric] for metric, column in self.columns.items()}
            append_row(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **kept})
        return results


class FloatEvaluator(Evaluator):
    """Returns one metric, as the evaluators of sentence-transformers 2.2 do.

    Attributes:
        main_metric: The metric that a call returns.
    """

    main_metric: str

    def __call__(
        self, model: Any, output_path: str | os.PathLike[str] | None = None, epoch: int = -1, steps: int = -1
    ) -> float:
        """Measures a model, logs the results, and appends them to the CSV file.

        Args:
            model: A CrossEncoder, or anything with its `predict(pairs, convert_to_numpy=, show_progress_bar=)`.
            output_path: The directory of the CSV file; made if missing. None writes no file.
            epoch: The epoch of training; -1 outside training.
            steps: Steps within the epoch; -1 at its end.

        Returns:
            The main metric, higher for a better model.

        Raises:
            ValueError: The model's scores have the wrong shape or are not finite.
        """
        return self.measure(model, output_path, epoch, steps)[self.main_metric]


class DictionaryEvaluator(Evaluator):
    """Returns all metrics, as the evaluators of sentence-transformers 4 and later do.

    Attributes:
        primary_metric: The key of the metric by which to choose a model; None while it depends on the model.
        greater_is_better: That metric is higher for a better model.
        prompt_name: Passed to the model's `predict`.
        batch_size: Passed to the model's `predict`.
        show_progress_bar: Whether to show a bar while the model predicts; None leaves it to the model.
    """

    primary_metric: str | None = None
    greater_is_better = True
    prompt_name: str | None
    batch_size: int
    show_progress_bar: bool | None

    def __call__(
        self, model: Any, output_path: str | os.PathLike[str] | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measures a model, logs the results, and appends them to the CSV file.

        Args:
            model: A CrossEncoder, or anything with its `num_labels` and its `predict(pairs, prompt_name=, batch_size=,
                convert_to_numpy=, show_progress_bar=)`.
            output_path: The directory of the CSV file; made if missing. None writes no file.
            epoch: The epoch of training; -1 outside training.
            steps: Steps within the epoch; -1 at its end.

        Returns:
            The metrics, each key beginning with the name of the data and "_" if there is one.

        Raises:
            ValueError: The model's scores have the wrong shape or are not finite.
        """
        return {self.key(metric): value for metric, value in self.measure(model, output_path, epoch, steps).items()}

    def predict_options(self) -> dict[str, Any]:
        """The arguments for the model's `predict`."""
        return {
            "prompt_name": self.prompt_name,
            "batch_size": self.batch_size,
            "show_progress_bar": self.show_progress_bar,
        }

    def key(self, metric: str) -> str:
        """The key of a metric in what a call returns."""
        return f"{self.name}_{metric}" if self.name else metric


class PairEvaluator(Evaluator):
    """Measures a model on pairs of texts, each with the label or score it should get.

    Args:
        sentence_pairs: Pairs of texts.
        gold: The number that belongs to each pair.
        name: What the data is called, for the log and the name of the CSV file.
        write_csv: Whether to keep the results in a CSV file.
        gold_name: What the caller knows `gold` as, for error messages.

    Raises:
        TypeError: A pair is no pair of texts, or a label no number; the message says where.
        ValueError: There are no pairs, or the labels are too few, too many or not finite; the message says where.
    """

    def __init__(
        self,
        sentence_pairs: Iterable[Any],
        gold: Iterable[Any],
        name: str,
        write_csv: bool,
        gold_name: str = "labels",
    ):
        super().__init__(name, write_csv)
        self.sentence_pairs = check_elements(sentence_pairs, "sentence_pairs", "a list of pairs")
        self.gold = check_numbers(gold, gold_name)  # [num_pairs]
        if not self.sentence_pairs:
            raise ValueError("sentence_pairs: expected at least one pair, got none")
        if len(self.gold) != len(self.sentence_pairs):
            raise ValueError(f"{gold_name}: expected {len(self.sentence_pairs)}, one per pair, got {len(self.gold)}")
        for index, pair in enumerate(self.sentence_pairs):
            check_pair(pair, f"sentence_pairs[{index}]")

    @classmethod
    def from_input_examples(cls, examples: Iterable[InputExample], **kwargs: Any) -> Self:
        """Makes an evaluator of examples with two texts and a label each.

        Args:
            examples: The examples.
            **kwargs: The other arguments of the constructor.
        """
        kept = check_elements(examples, "examples", "a list of InputExample")
        return cls([example.texts for example in kept], [example.label for example in kept], **kwargs)

    def predict(self, model: Any) -> NDArray[Any]:
        """The model's scores for the pairs, `[num_pairs]` or `[num_pairs, num_labels]`; see `predicted_scores`."""
        return predicted_scores(model, self.sentence_pairs, self.dimensions, self.predict_options())


def predicted_scores(
    model: Any, pairs: list[Any], dimensions: Collection[int], options: Mapping[str, Any]
) -> NDArray[Any]:
    """Asks a model for scores.

    Args:
        model: Anything with the `predict` of a CrossEncoder.
        pairs: Pairs of texts.
        dimensions: How many dimensions the scores may have: 1 for one score per pair, 2 for one per pair and label.
        options: More arguments for `predict`.

    Returns:
        `[num_pairs]` or `[num_pairs, num_labels]`.

    Raises:
        ValueError: The scores have another shape or are not finite.
    """
    scores = np.asarray(model.predict(pairs, convert_to_numpy=True, **options))
    if scores.ndim not in dimensions or len(scores) != len(pairs):
        shapes = {1: f"[{len(pairs)}]", 2: f"[{len(pairs)}, num_labels]"}
        expected = " or ".join(shapes[dimension] for dimension in sorted(dimensions))
        raise ValueError(f"predict: expected scores of shape {expected}, got {list(scores.shape)}")
    check_finite_array(scores, "predict")
    return scores


def check_binary(labels: NDArray[Any]) -> None:
    """Raises ValueError for labels other than 0 and 1, and says where the first one is."""
    others = np.flatnonzero((labels != 0) & (labels != 1))
    if len(others):
        raise ValueError(f"labels[{others[0]}]: expected 0 or 1, got {labels[others[0]]}")


def check_numbers(values: Iterable[Any], place: str) -> NDArray[Any]:
    """Turns numbers into an array, `[num_values]`.

    Raises:
        TypeError: Something is no number.
        ValueError: Something is not finite, or is itself a list of numbers; the message says where.
    """
    found = check_elements(values, place, "a list of numbers")
    array = np.asarray(found)
    if array.dtype.kind not in NUMBER_KINDS:
        index = next(index for index, value in enumerate(found) if np.asarray(value).dtype.kind not in NUMBER_KINDS)
        raise TypeError(f"{place}[{index}]: expected a number, got {describe(found[index])}")
    if array.ndim != 1:
        raise ValueError(f"{place}: expected a list of numbers, got one of shape {list(array.shape)}")
    check_finite_array(array, place)
    return array


def check_finite_array(array: NDArray[Any], place: str) -> None:
    """Raises ValueError for infinities and NaN, and says where the first one is."""
    positions = np.argwhere(~np.isfinite(array))
    if len(positions):
        position = tuple(positions[0].tolist())
        raise ValueError(f"{place}{list(position)}: expected a finite number, got {array[position]}")


def describe_progress(epoch: int, steps: int) -> str:
    """When in training something was measured, for the log."""
    if epoch == -1:
        return ""
    return f"after epoch {epoch}" if steps == -1 else f"in epoch {epoch} after {steps} steps"


def append_row(file: Path, row: Mapping[str, float]) -> None:
    """Appends a row to a CSV file, below a header if the row is the first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if stream.tell() == 0:
            writer.writerow(row.keys())
        writer.writerow(row.values())
