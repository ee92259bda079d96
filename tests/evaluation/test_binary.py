from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, precision_recall_fscore_support
from stub_models import StubModel, make_pairs

from fastce.evaluation import CEBinaryAccuracyEvaluator, CEBinaryClassificationEvaluator


@pytest.fixture
def scored() -> tuple[list[int], Any]:
    """Labels and scores without ties; the lowest scores have label 0, so that accepting all pairs is not the best."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 200)
    scores = generator.permutation(200) / 200 + 0.4 * labels
    labels[np.argsort(scores)[:5]] = 0
    return labels.tolist(), scores.astype(np.float32)


def test_accuracy_of_scores_above_the_threshold() -> None:
    evaluator = CEBinaryAccuracyEvaluator(make_pairs(5), [1, 0, 1, 0, 1])
    assert evaluator(StubModel([0.9, 0.5, 0.5, 0.51, 0.7])) == 0.6


def test_accuracy_is_that_of_scikit_learn(scored: tuple[list[int], Any]) -> None:
    labels, scores = scored
    evaluator = CEBinaryAccuracyEvaluator(make_pairs(200), labels, threshold=0.7)
    assert evaluator(StubModel(scores)) == accuracy_score(labels, scores > 0.7)


def test_classification_returns_average_precision(scored: tuple[list[int], Any]) -> None:
    labels, scores = scored
    evaluator = CEBinaryClassificationEvaluator(make_pairs(200), labels)
    assert evaluator(StubModel(scores)) == average_precision_score(labels, scores)


def test_classification_at_its_thresholds_is_that_of_scikit_learn(scored: tuple[list[int], Any]) -> None:
    labels, scores = scored
    results = CEBinaryClassificationEvaluator(make_pairs(200), labels).evaluate(StubModel(scores))
    assert results["accuracy"] == accuracy_score(labels, scores > results["accuracy_threshold"])
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, scores > results["f1_threshold"], average="binary"
    )
    assert [results["precision"], results["recall"], results["f1"]] == pytest.approx([precision, recall, f1])
    middles = np.convolve(np.sort(scores), [0.5, 0.5], "valid")
    assert results["accuracy"] == max(accuracy_score(labels, scores > middle) for middle in middles)


def test_classification_is_that_of_sentence_transformers(scored: tuple[list[int], Any]) -> None:
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    reference = evaluation.BinaryClassificationEvaluator
    labels, scores = scored
    results = CEBinaryClassificationEvaluator(make_pairs(200), labels).evaluate(StubModel(scores))
    accuracy = [results[column] for column in ("accuracy", "accuracy_threshold")]
    assert accuracy == pytest.approx(reference.find_best_acc_and_threshold(scores, np.array(labels), True), rel=1e-6)
    f1 = [results[column] for column in ("f1", "precision", "recall", "f1_threshold")]
    assert f1 == pytest.approx(reference.find_best_f1_and_threshold(scores, np.array(labels), True), rel=1e-6)


def test_classification_tells_pairs_of_equal_score_apart_as_in_2_2() -> None:
    results = CEBinaryClassificationEvaluator(make_pairs(4), [1, 1, 0, 0]).evaluate(StubModel([0.5] * 4))
    assert (results["accuracy"], results["f1"]) == (1.0, 1.0)


def test_classification_row(tmp_path: Path) -> None:
    evaluator = CEBinaryClassificationEvaluator(make_pairs(4), [1, 0, 1, 0])
    evaluator(StubModel([4.0, 3.0, 2.0, 1.0]), tmp_path, 1, 20)
    row = (tmp_path / evaluator.csv_file).read_text().splitlines()[1]
    assert row == "1,20,0.75,3.5,0.8,1.5,0.6666666666666666,1.0,0.8333333333333333"


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, 0.5], [0, 1, -1]])
def test_classification_refuses_other_labels(labels: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"^labels\[2\]: expected 0 or 1, got {labels[2]}$"):
        CEBinaryClassificationEvaluator(make_pairs(3), labels)


@pytest.mark.parametrize("labels", [[False, True, True], [0.0, 1.0, 1.0], np.array([0, 1, 1])])
def test_classification_takes_labels_of_any_type(labels: Any) -> None:
    evaluator = CEBinaryClassificationEvaluator(make_pairs(3), labels)
    assert list(evaluator.evaluate(StubModel([1.0, 3.0, 2.0])).values()) == [1.0, 1.5, 1.0, 1.5, 1.0, 1.0, 1.0]
