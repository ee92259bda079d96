from __future__ import annotations

import csv
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_models import StubModel, make_pairs

import fastce.evaluation
from fastce import CrossEncoder, InputExample
from fastce.evaluation import (
    CEBinaryAccuracyEvaluator,
    CEBinaryClassificationEvaluator,
    CECorrelationEvaluator,
    CEF1Evaluator,
    CERerankingEvaluator,
    CESoftmaxAccuracyEvaluator,
)

TWO_CLASSES = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]]
PAIR_EVALUATORS = {
    CEBinaryAccuracyEvaluator: [0.1, 0.9, 0.8, 0.2],
    CEBinaryClassificationEvaluator: [0.1, 0.9, 0.8, 0.2],
    CECorrelationEvaluator: [0.1, 0.9, 0.8, 0.2],
    CEF1Evaluator: TWO_CLASSES,
    CESoftmaxAccuracyEvaluator: TWO_CLASSES,
}
LABELS = [0, 1, 1, 0]


def samples(number: int = 1) -> list[dict[str, Any]]:
    return [{"query": f"q{index}", "positive": ["good"], "negative": ["bad"]} for index in range(number)]


EVERY_EVALUATOR = [
    *((evaluator(make_pairs(4), LABELS, name="dev"), scores) for evaluator, scores in PAIR_EVALUATORS.items()),
    (CERerankingEvaluator(samples(), name="dev"), [0.9, 0.1]),
]
EVERY_EVALUATOR_IDS = [type(evaluator).__name__ for evaluator, _ in EVERY_EVALUATOR]

COLUMNS = {
    "CEBinaryAccuracyEvaluator": ["Accuracy"],
    "CEBinaryClassificationEvaluator": [
        "Accuracy",
        "Accuracy_Threshold",
        "F1",
        "F1_Threshold",
        "Precision",
        "Recall",
        "Average_Precision",
    ],
    "CECorrelationEvaluator": ["Pearson_Correlation", "Spearman_Correlation"],
    "CEF1Evaluator": ["Binary F1 score"],
    "CERerankingEvaluator": ["MRR@10"],
    "CESoftmaxAccuracyEvaluator": ["Accuracy"],
}


def read_csv(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_every_evaluator_is_exported_and_tested() -> None:
    exported = [name for name in fastce.evaluation.__all__ if name.startswith("CE")]
    assert sorted(exported) == sorted(COLUMNS) == sorted(EVERY_EVALUATOR_IDS)


@pytest.mark.parametrize(("evaluator", "scores"), EVERY_EVALUATOR, ids=EVERY_EVALUATOR_IDS)
def test_appends_a_row_per_call_below_one_header(evaluator: Any, scores: Any, tmp_path: Path) -> None:
    directory = tmp_path / "made" / "by the evaluator"
    first = evaluator(StubModel(scores), str(directory), epoch=0, steps=500)
    second = evaluator(StubModel(scores), directory, 0)

    class_name = type(evaluator).__name__
    header, *rows = read_csv(directory / f"{class_name}_dev_results.csv")
    assert header == ["epoch", "steps", *COLUMNS[class_name]]
    assert [row[:2] for row in rows] == [["0", "500"], ["0", "-1"]]
    assert type(first) is float
    assert first == second
    assert repr(first) in rows[0][2:]
    assert [path.name for path in directory.iterdir()] == [f"{class_name}_dev_results.csv"]


@pytest.mark.parametrize(("evaluator", "scores"), EVERY_EVALUATOR, ids=EVERY_EVALUATOR_IDS)
def test_a_perfect_model_gets_one(evaluator: Any, scores: Any) -> None:
    spearman_of_ties = np.sqrt(0.8) if isinstance(evaluator, CECorrelationEvaluator) else 1.0
    assert evaluator(StubModel(scores)) == pytest.approx(spearman_of_ties)


@pytest.mark.parametrize(("evaluator", "scores"), EVERY_EVALUATOR, ids=EVERY_EVALUATOR_IDS)
def test_asks_the_model_once(evaluator: Any, scores: Any) -> None:
    model = StubModel(scores)
    evaluator(model)
    [(pairs, options)] = model.calls
    assert len(pairs) == len(scores)
    batch_size = {"batch_size": 32} if isinstance(evaluator, CEF1Evaluator) else {}
    assert options == {"convert_to_numpy": True, "show_progress_bar": False, **batch_size}


def test_arguments_for_predict_are_passed_on() -> None:
    model = StubModel(TWO_CLASSES)
    CEF1Evaluator(make_pairs(4), LABELS, batch_size=7, show_progress_bar=True)(model)
    assert model.calls[-1][1] == {"convert_to_numpy": True, "show_progress_bar": True, "batch_size": 7}

    model = StubModel([0.1, 0.9, 0.8, 0.2])
    CEBinaryClassificationEvaluator(make_pairs(4), LABELS, "dev", True)(model)
    assert model.calls[-1][1] == {"convert_to_numpy": True, "show_progress_bar": True}


def test_measures_a_cross_encoder(tiny: Callable[..., str], tmp_path: Path) -> None:
    model = CrossEncoder(tiny(), device="cpu")
    pairs = [("a man eats", "a man is eating"), ("a man eats", "the sky"), ("rain", "it rains today")]
    scores = model.predict(pairs)
    labels = (scores == scores.max()).astype(int).tolist()
    assert CEBinaryClassificationEvaluator(pairs, labels)(model, str(tmp_path), 0, 1) == 1.0
    assert CEBinaryAccuracyEvaluator(pairs, labels, threshold=np.sort(scores)[-2])(model) == 1.0


def test_file_without_a_name(tmp_path: Path) -> None:
    CEBinaryAccuracyEvaluator(make_pairs(4), LABELS)(StubModel([0.1, 0.9, 0.8, 0.2]), str(tmp_path))
    assert read_csv(tmp_path / "CEBinaryAccuracyEvaluator_results.csv") == [
        ["epoch", "steps", "Accuracy"],
        ["-1", "-1", "1.0"],
    ]


def test_write_csv_can_be_turned_off(tmp_path: Path) -> None:
    CEBinaryAccuracyEvaluator(make_pairs(4), LABELS, write_csv=False)(StubModel([0.1, 0.9, 0.8, 0.2]), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_arguments_by_position() -> None:
    pairs, scores = make_pairs(4), [0.1, 0.9, 0.8, 0.2]
    accuracy = CEBinaryAccuracyEvaluator(pairs, LABELS, "dev", 0.85, False)
    assert (accuracy.name, accuracy.threshold, accuracy.write_csv) == ("dev", 0.85, False)
    assert accuracy(StubModel(scores)) == 0.75
    classification = CEBinaryClassificationEvaluator(pairs, LABELS, "dev", True, False)
    assert (classification.name, classification.show_progress_bar, classification.write_csv) == ("dev", True, False)
    for evaluator in (
        CECorrelationEvaluator(pairs, LABELS, "dev", False),
        CESoftmaxAccuracyEvaluator(pairs, LABELS, "dev", False),
    ):
        assert (evaluator.name, evaluator.write_csv) == ("dev", False)
    reranking = CERerankingEvaluator(samples(), 3, "dev", False)
    assert (reranking.mrr_at_k, reranking.name, reranking.write_csv) == (3, "dev", False)


@pytest.mark.parametrize(
    ("epoch", "steps", "headline"),
    [
        (-1, -1, "CEBinaryAccuracyEvaluator dev: "),
        (2, -1, "CEBinaryAccuracyEvaluator dev after epoch 2: "),
        (2, 100, "CEBinaryAccuracyEvaluator dev in epoch 2 after 100 steps: "),
    ],
)
def test_logs_the_results(epoch: int, steps: int, headline: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fastce.evaluation"):
        CEBinaryAccuracyEvaluator(make_pairs(4), LABELS, "dev")(StubModel([0, 1, 0, 0]), None, epoch, steps)
    assert caplog.messages == [headline + "Accuracy 0.7500"]


@pytest.mark.parametrize(
    ("evaluator", "scores"), PAIR_EVALUATORS.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_from_input_examples(evaluator: Any, scores: Any, tmp_path: Path) -> None:
    examples = [InputExample(texts=texts, label=label) for texts, label in zip(make_pairs(4), LABELS, strict=True)]
    model = StubModel(scores)
    made = evaluator.from_input_examples(iter(examples), name="dev", write_csv=False)
    assert type(made) is evaluator
    assert made(model, tmp_path) == evaluator(make_pairs(4), LABELS)(StubModel(scores))
    assert model.calls[0][0] == make_pairs(4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("evaluator", PAIR_EVALUATORS, ids=lambda value: value.__name__)
@pytest.mark.parametrize(
    ("pairs", "gold", "error", "message"),
    [
        ([], [], ValueError, "sentence_pairs: expected at least one pair, got none"),
        (make_pairs(3), [0, 1], ValueError, "GOLD: expected 3, one per pair, got 2"),
        (make_pairs(2), [0, float("nan")], ValueError, r"GOLD\[1\]: expected a finite number, got nan"),
        (make_pairs(2), [0, "1"], TypeError, r"GOLD\[1\]: expected a number, got str '1'"),
        (make_pairs(2), [0, None], TypeError, r"GOLD\[1\]: expected a number, got None"),
        (make_pairs(2), [[0], [1]], ValueError, r"GOLD: expected a list of numbers, got one of shape \[2, 1\]"),
        (["one", "pair"], [0, 1], TypeError, r"sentence_pairs\[0\]: expected a pair of texts, got str 'one'"),
        ([["a", "b"], ["a"]], [0, 1], ValueError, r"sentence_pairs\[1\]: expected 2 texts, got 1"),
    ],
)
def test_refuses_wrong_data(evaluator: Any, pairs: Any, gold: Any, error: type[Exception], message: str) -> None:
    name = "scores" if evaluator is CECorrelationEvaluator else "labels"
    with pytest.raises(error, match="^" + message.replace("GOLD", name) + "$"):
        evaluator(pairs, gold)


@pytest.mark.parametrize("evaluator", PAIR_EVALUATORS, ids=lambda value: value.__name__)
@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (4, 2, 1)])
def test_refuses_scores_of_another_shape(evaluator: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^predict: expected scores of shape \[4.*\], got \["):
        evaluator(make_pairs(4), LABELS)(StubModel(np.zeros(shape)))


def test_refuses_scores_per_label_where_it_needs_one_per_pair_and_vice_versa() -> None:
    message = r"^predict: expected scores of shape \[4\], got \[4, 2\]$"
    with pytest.raises(ValueError, match=message):
        CEBinaryAccuracyEvaluator(make_pairs(4), LABELS)(StubModel(TWO_CLASSES))
    message = r"^predict: expected scores of shape \[4, num_labels\], got \[4\]$"
    with pytest.raises(ValueError, match=message):
        CESoftmaxAccuracyEvaluator(make_pairs(4), LABELS)(StubModel([0, 1, 0, 1]))
    with pytest.raises(ValueError, match=message):
        CEF1Evaluator(make_pairs(4), [0, 1, 2, 0])(StubModel([0, 1, 0, 1]))


def test_refuses_scores_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match=r"^predict\[2\]: expected a finite number, got nan$"):
        CEBinaryAccuracyEvaluator(make_pairs(4), LABELS)(StubModel([0, 1, np.nan, np.inf]))
    with pytest.raises(ValueError, match=r"^predict\[1, 0\]: expected a finite number, got inf$"):
        CESoftmaxAccuracyEvaluator(make_pairs(2), [0, 1])(StubModel([[0, 1], [np.inf, 0]]))


def test_importing_is_cheap() -> None:
    code = "import sys, fastce.evaluation; print(*({'scipy', 'sklearn', 'torch', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_what_has_no_order_is_no_list_of_pairs_or_labels() -> None:
    pairs = {("a", "b"): 0, ("c", "d"): 1}
    for arguments, message in (
        ((set(pairs), [0, 1]), "sentence_pairs: expected a list of pairs, got set"),
        ((pairs, [0, 1]), "sentence_pairs: expected a list of pairs, got dict"),
        ((list(pairs), {0, 1}), "labels: expected a list of numbers, got set"),
        ((list(pairs), {0: 1, 1: 0}), "labels: expected a list of numbers, got dict"),
    ):
        with pytest.raises(TypeError, match=message):
            CEBinaryAccuracyEvaluator(*arguments)
    with pytest.raises(TypeError, match="examples: expected a list of InputExample, got set"):
        CEBinaryAccuracyEvaluator.from_input_examples({InputExample(texts=["a", "b"], label=1)})
    CEBinaryAccuracyEvaluator(pairs.keys(), pairs.values())  # these have one
