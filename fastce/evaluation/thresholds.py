"""The threshold on scores that separates label 1 from label 0 best.

Pairs are taken from the highest score down. Each cut accepts so many of them; its threshold lies midway between the
last score accepted and the first one refused. sentence-transformers has changed which cuts it considers:

- 2.2 cuts between any two pairs, so that pairs of equal score are told apart, which no threshold does afterwards; it
  never accepts all pairs or none.
- 6.2 cuts between different scores only, and may accept all pairs or none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Cuts(NamedTuple):
    """Thresholds from high to low, and what each does.

    Attributes:
        thresholds: `[num_cuts]`.
        accepted: How many pairs each threshold accepts, `[num_cuts]`.
        correct: How many of those have label 1, `[num_cuts]`.
        num_pairs: How many pairs there are.
        num_positive: How many of them have label 1.
    """

    thresholds: NDArray[Any]
    accepted: NDArray[np.intp]
    correct: NDArray[np.intp]
    num_pairs: int
    num_positive: int


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


def cuts_between_pairs(scores: NDArray[Any], labels: NDArray[Any]) -> Cuts:
    """The cuts of sentence-transformers 2.2; of pairs of equal score, the first one given is accepted first.

    Args:
        scores: `[num_pairs]`.
        labels: `[num_pairs]`, each 0 or 1.

    Returns:
        `num_pairs - 1` cuts.
    """
    descending, correct = rank(scores, labels)
    thresholds = (descending[:-1] + descending[1:]) / 2
    accepted = np.arange(1, len(descending), dtype=np.intp)
    return Cuts(thresholds, accepted, correct[:-1], len(labels), int(correct[-1]))


def cuts_between_scores(scores: NDArray[Any], labels: NDArray[Any]) -> Cuts:
    """The cuts of sentence-transformers 6.2; the first one accepts no pair, the last one all.

    Args:
        scores: `[num_pairs]`.
        labels: `[num_pairs]`, each 0 or 1.

    Returns:
        One cut more than there are different scores.
    """
    descending, correct = rank(scores, labels)
    middles = (descending[:-1] + descending[1:]) / 2
    rounded_down = middles == descending[1:]  # such a threshold would accept the next score too
    thresholds = np.append(np.where(rounded_down, descending[:-1], middles), descending[-1])
    ends = np.append(descending[:-1] != descending[1:], True)
    return Cuts(
        np.append(np.nextafter(descending[:1], np.inf), thresholds[ends]),
        np.append(0, np.flatnonzero(ends) + 1),
        np.append(0, correct[ends]),
        len(labels),
        int(correct[-1]),
    )


def rank(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Scores from high to low, and how many pairs up to each have label 1, both `[num_pairs]`."""
    order = np.argsort(-scores, kind="stable")
    return scores[order], np.cumsum(labels[order] == 1, dtype=np.intp)


def best_accuracy(cuts: Cuts) -> BestAccuracy:
    """Finds the threshold of the highest accuracy; of equal ones, the highest threshold."""
    refused_correctly = (cuts.num_pairs - cuts.num_positive) - (cuts.accepted - cuts.correct)
    accuracy = (cuts.correct + refused_correctly) / cuts.num_pairs
    best = first_maximum(accuracy)
    if best is None:
        return BestAccuracy(0.0, -1.0)
    return BestAccuracy(float(accuracy[best]), float(cuts.thresholds[best]))


def best_f1(cuts: Cuts) -> BestF1:
    """Finds the threshold of the highest F1; of equal ones, the highest threshold."""
    correct = cuts.correct
    precision = correct / np.maximum(cuts.accepted, 1)
    recall = correct / max(cuts.num_positive, 1)
    f1 = np.divide(2 * precision * recall, precision + recall, out=np.zeros(len(correct)), where=correct > 0)
    best = first_maximum(f1)
    if best is None:
        return BestF1(0.0, 0.0, 0.0, 0.0)
    return BestF1(float(f1[best]), float(precision[best]), float(recall[best]), float(cuts.thresholds[best]))


def first_maximum(values: NDArray[np.float64]) -> int | None:
    """The index of the first greatest value; None where no value is above 0."""
    if not np.any(values > 0):
        return None
    return int(np.argmax(values))
