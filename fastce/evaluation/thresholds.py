"""The threshold on scores that separates label 1 from label 0 best.

Pairs are taken from the highest score down, pairs of equal score in the order given. Every number of pairs but all of
them may be accepted; the threshold lies midway between the last score accepted and the first one refused. Two
consequences, both as sentence-transformers 2.2 has them: accepting all pairs or none is not considered, and pairs of
equal score may be told apart, which no threshold does afterwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class BestAccuracy(NamedTuple):
    """The highest accuracy, and the threshold that reaches it: 0 and -1 where it is never above 0."""

    accuracy: float
    threshold: float


class BestF1(NamedTuple):
    """The highest F1, its precision and recall, and the threshold that reaches it: all 0 where F1 is never above 0."""

    f1: float
    precision: float
    recall: float
    threshold: float


def best_accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> BestAccuracy:
    """Finds the threshold of the highest accuracy; of equal ones, the highest threshold.

    Args:
        scores: `[num_pairs]`.
        labels: `[num_pairs]`, each 0 or 1.
    """
    thresholds, accepted, correct = sweep(scores, labels)
    refused_correctly = np.count_nonzero(labels == 0) - (accepted - correct)
    accuracy = (correct + refused_correctly) / len(labels)
    best = first_maximum(accuracy)
    return BestAccuracy(0.0, -1.0) if best is None else BestAccuracy(float(accuracy[best]), float(thresholds[best]))


def best_f1(scores: NDArray[Any], labels: NDArray[Any]) -> BestF1:
    """Finds the threshold of the highest F1; of equal ones, the highest threshold.

    Args:
        scores: `[num_pairs]`.
        labels: `[num_pairs]`, each 0 or 1.
    """
    thresholds, accepted, correct = sweep(scores, labels)
    precision = correct / accepted
    recall = correct / max(int(np.count_nonzero(labels)), 1)
    f1 = np.divide(2 * precision * recall, precision + recall, out=np.zeros(len(correct)), where=correct > 0)
    best = first_maximum(f1)
    if best is None:
        return BestF1(0.0, 0.0, 0.0, 0.0)
    return BestF1(float(f1[best]), float(precision[best]), float(recall[best]), float(thresholds[best]))


def sweep(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Lowers the threshold from pair to pair.

    Returns:
        Thresholds from high to low, how many pairs each accepts, and how many of those have label 1, each
        `[num_pairs - 1]`.
    """
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    thresholds = (descending[:-1] + descending[1:]) / 2
    accepted = np.arange(1, len(order), dtype=np.intp)
    correct = np.cumsum(labels[order] == 1, dtype=np.intp)[:-1]
    return thresholds, accepted, correct


def first_maximum(values: NDArray[np.float64]) -> int | None:
    """The index of the first greatest value; None where no value is above 0."""
    if not np.any(values > 0):
        return None
    return int(np.argmax(values))
