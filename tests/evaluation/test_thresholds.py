from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastce.evaluation.thresholds import best_accuracy, best_f1, cuts_between_pairs, cuts_between_scores


def ranked(scores: Any, labels: Any) -> list[tuple[Any, int]]:
    return sorted(zip(scores, labels, strict=True), key=lambda row: row[0], reverse=True)


def plain_best_accuracy(scores: Any, labels: Any) -> tuple[float, float]:
    rows = ranked(scores, labels)
    best = (0.0, -1.0)
    for cut in range(1, len(rows)):
        right = sum(label == 1 for _, label in rows[:cut]) + sum(label == 0 for _, label in rows[cut:])
        if right / len(rows) > best[0]:
            best = (right / len(rows), float((rows[cut - 1][0] + rows[cut][0]) / 2))
    return best


def plain_best_f1(scores: Any, labels: Any) -> tuple[float, float, float, float]:
    rows = ranked(scores, labels)
    best = (0.0, 0.0, 0.0, 0.0)
    for cut in range(1, len(rows)):
        correct = sum(label for _, label in rows[:cut])
        if correct == 0:
            continue
        precision, recall = correct / cut, correct / sum(labels)
        f1 = 2 * precision * recall / (precision + recall)
        if f1 > best[0]:
            best = (f1, precision, recall, float((rows[cut - 1][0] + rows[cut][0]) / 2))
    return best


few_scores = st.sampled_from([-1.5, -0.1, 0.0, 0.1, 0.2, 0.3, 0.7])
any_scores = st.floats(-100, 100, width=32)
labelled_scores = st.lists(st.tuples(few_scores | any_scores, st.integers(0, 1)), min_size=1, max_size=40)


@given(labelled_scores, st.sampled_from([np.float32, np.float64]))
@example([(0.5, 1)], np.float32)
@example([(0.5, 0)], np.float32)
@example([(0.5, 0), (0.5, 1), (0.5, 1), (0.5, 0)], np.float32)
@example([(0.9, 0), (0.1, 1)], np.float32)
@example([(0.9, 0), (0.8, 0), (0.1, 1)], np.float32)
def test_same_as_the_plain_loop(rows: list[tuple[float, int]], dtype: Any) -> None:
    scores = np.array([score for score, _ in rows], dtype=dtype)
    labels = [label for _, label in rows]
    assert best_accuracy(cuts_between_pairs(scores, np.array(labels))) == plain_best_accuracy(scores, labels)
    assert best_f1(cuts_between_pairs(scores, np.array(labels))) == plain_best_f1(scores, labels)


@given(labelled_scores, st.sampled_from([np.float32, np.float64]))
@example([(0.5, 1)], np.float32)
@example([(0.5, 0)], np.float32)
@example([(0.5, 0), (0.5, 1), (0.5, 1), (0.5, 0)], np.float32)
@example([(1 - 2**-24, 1), (1 - 2**-23, 0)], np.float32)  # neighbours, whose middle rounds to the lower one
def test_cuts_between_scores_do_what_their_thresholds_say(rows: list[tuple[float, int]], dtype: Any) -> None:
    scores, labels = np.array([score for score, _ in rows], dtype=dtype), np.array([label for _, label in rows])
    cuts = cuts_between_scores(scores, labels)
    assert cuts.thresholds.dtype == dtype
    accepted = scores >= cuts.thresholds[:, None]
    assert cuts.accepted.tolist() == accepted.sum(axis=1).tolist()
    assert cuts.correct.tolist() == (accepted & (labels == 1)).sum(axis=1).tolist()
    assert len(cuts.accepted) == 1 + len(np.unique(scores))
    assert best_accuracy(cuts).accuracy == max(np.mean(row == labels) for row in accepted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("seed", range(10))
def test_cuts_between_scores_are_those_of_sentence_transformers(seed: int, dtype: Any) -> None:
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    reference = evaluation.BinaryClassificationEvaluator
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 60)
    scores = (generator.integers(0, 12, 60) / 4 + labels).astype(dtype)
    cuts = cuts_between_scores(scores, labels)
    assert best_accuracy(cuts) == reference.find_best_acc_and_threshold(scores, labels, True)
    assert best_f1(cuts) == reference.find_best_f1_and_threshold(scores, labels, True)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_cuts_between_scores_may_accept_no_pair_or_all(labels: list[int]) -> None:
    scores = np.array([0.5, 0.9, 0.7])
    cuts = cuts_between_scores(scores, np.array(labels))
    assert best_accuracy(cuts) == (1.0, 0.5 if labels[0] else np.nextafter(0.9, 1))
    assert best_f1(cuts) == ((1.0, 1.0, 1.0, 0.5) if labels[0] else (0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("seed", range(20))
def test_same_as_the_plain_loop_with_many_ties(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 300)
    scores = (np.round(generator.random(300) * 8) / 8 + 0.2 * labels).astype(np.float32)
    assert best_accuracy(cuts_between_pairs(scores, labels)) == plain_best_accuracy(scores, labels.tolist())
    assert best_f1(cuts_between_pairs(scores, labels)) == plain_best_f1(scores, labels.tolist())


def test_the_threshold_lies_midway() -> None:
    scores, labels = np.array([0.1, 0.8, 0.6, 0.2]), np.array([0, 1, 1, 0])
    assert best_accuracy(cuts_between_pairs(scores, labels)) == (1.0, 0.4)
    assert best_f1(cuts_between_pairs(scores, labels)) == (1.0, 1.0, 1.0, 0.4)


def test_of_equal_thresholds_the_highest_wins() -> None:
    scores, labels = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 1, 0])
    assert best_accuracy(cuts_between_pairs(scores, labels)) == (0.75, 3.5)


def test_ties_are_told_apart_by_their_order() -> None:
    scores = np.array([0.5, 0.5, 0.5, 0.5])
    assert best_accuracy(cuts_between_pairs(scores, np.array([1, 1, 0, 0]))) == (1.0, 0.5)
    assert best_accuracy(cuts_between_pairs(scores, np.array([0, 0, 1, 1]))) == (0.25, 0.5)


def test_accepting_all_pairs_is_not_considered() -> None:
    scores, labels = np.array([0.9, 0.5]), np.array([1, 1])
    assert best_accuracy(cuts_between_pairs(scores, labels)) == (0.5, 0.7)
    assert best_f1(cuts_between_pairs(scores, labels)) == (pytest.approx(2 / 3), 1.0, 0.5, 0.7)


def test_without_a_positive_pair() -> None:
    assert best_f1(cuts_between_pairs(np.array([0.9, 0.5]), np.array([0, 0]))) == (0.0, 0.0, 0.0, 0.0)
    assert best_accuracy(cuts_between_pairs(np.array([0.9, 0.5]), np.array([0, 0]))) == (0.5, 0.7)
