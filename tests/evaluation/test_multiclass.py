from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from stub_models import StubModel, make_pairs

from fastce.evaluation import CEF1Evaluator, CESoftmaxAccuracyEvaluator

GENERATOR = np.random.default_rng(7)
LABELS = GENERATOR.choice(3, 60, p=[0.6, 0.3, 0.1])
LOGITS = (GENERATOR.normal(size=(60, 3)) + 1.5 * np.eye(3)[LABELS]).astype(np.float32)
CLASSES = LOGITS.argmax(axis=1)


def test_softmax_accuracy() -> None:
    evaluator = CESoftmaxAccuracyEvaluator(make_pairs(4), [2, 1, 0, 0])
    assert evaluator(StubModel([[0, 1, 2], [3, 9, 3], [0, 0, -1], [-5, -4, -6]])) == 0.75


def test_softmax_accuracy_is_that_of_scikit_learn() -> None:
    evaluator = CESoftmaxAccuracyEvaluator(make_pairs(60), LABELS.tolist())
    assert evaluator(StubModel(LOGITS)) == accuracy_score(LABELS, CLASSES)


def test_f1_of_three_classes_is_that_of_scikit_learn() -> None:
    evaluator = CEF1Evaluator(make_pairs(60), LABELS.tolist())
    results = evaluator.evaluate(StubModel(LOGITS))
    assert results == {
        "f1_macro": f1_score(LABELS, CLASSES, average="macro"),
        "f1_micro": f1_score(LABELS, CLASSES, average="micro"),
        "f1_weighted": f1_score(LABELS, CLASSES, average="weighted"),
    }
    assert len(set(results.values())) == 3
    assert evaluator(StubModel(LOGITS)) == results["f1_macro"]


def test_f1_of_three_classes_is_that_of_sentence_transformers() -> None:
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")
    model = StubModel(LOGITS)
    model.num_labels = 3
    reference = evaluation.CrossEncoderClassificationEvaluator(make_pairs(60), LABELS.tolist())(model)
    results = CEF1Evaluator(make_pairs(60), LABELS.tolist()).evaluate(model)
    assert results == reference


def test_f1_of_two_classes() -> None:
    evaluator = CEF1Evaluator(make_pairs(5), [1, 1, 1, 0, 0])
    results = evaluator.evaluate(StubModel([[0, 2], [0, 1], [1, 0], [1, 0], [0, 3]]))
    assert results == {"f1": pytest.approx(2 / 3)}


def test_f1_of_a_model_with_one_output() -> None:
    evaluator = CEF1Evaluator(make_pairs(5), [1, 1, 1, 0, 0])
    assert evaluator(StubModel([0.9, 0.6, 0.5, 0.2, 0.51])) == pytest.approx(2 / 3)


def test_f1_refuses_labels_of_one_class() -> None:
    with pytest.raises(ValueError, match=r"^labels: expected at least two different ones, got only 1$"):
        CEF1Evaluator(make_pairs(3), [1, 1, 1])
