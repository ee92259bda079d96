"""The evaluators that return dictionaries, against those of sentence-transformers."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from stub_models import LookupModel, StubModel, make_pairs

import fastce.evaluation
from fastce import CrossEncoder, InputExample
from fastce.evaluation import (
    CrossEncoderClassificationEvaluator,
    CrossEncoderCorrelationEvaluator,
    CrossEncoderRerankingEvaluator,
)

GENERATOR = np.random.default_rng(13)
NUMBER = 60
BINARY_LABELS = GENERATOR.integers(0, 2, NUMBER).tolist()
CLASSES = GENERATOR.integers(0, 3, NUMBER).tolist()
GOLD = np.round(5 * GENERATOR.random(NUMBER), 1).tolist()
TIED_SCORES = (GENERATOR.integers(0, 15, NUMBER) / 10 + BINARY_LABELS).astype(np.float32)
LOGITS = (GENERATOR.normal(size=(NUMBER, 3)) + np.eye(3)[CLASSES]).astype(np.float32)
DOCUMENTS = [f"document {number}" for number in range(NUMBER)]


def labelled_samples() -> list[dict[str, Any]]:
    return [
        {
            "query": f"query {number}",
            "positive": DOCUMENTS[: 1 + number % 4] if number else DOCUMENTS[0],
            "negative": DOCUMENTS[20 : 21 + 3 * number],
        }
        for number in range(12)
    ]


def ranked_samples() -> list[dict[str, Any]]:
    """First-stage rankings that find all, some or none of the positive documents."""
    samples = []
    for number in range(12):
        generator = np.random.default_rng(number)
        positive = generator.choice(DOCUMENTS[:20], 1 + number % 5, replace=False).tolist()
        samples.append(
            {
                "query": f"query {number}",
                "positive": positive,
                "documents": generator.choice(DOCUMENTS[: 40 if number else 20], 18, replace=False).tolist(),
            }
        )
    samples.append({"query": "nothing found", "positive": ["elsewhere"], "documents": DOCUMENTS[:5]})
    samples.append({"query": "nothing to find", "positive": [], "documents": DOCUMENTS[:5]})
    return samples


def scorer() -> LookupModel:
    """Scores every document that a sample may hold, each differently."""
    pairs = [
        (sample["query"], document) for sample in ranked_samples() for document in [*DOCUMENTS, *sample["positive"]]
    ]
    return LookupModel(dict(zip(pairs, np.random.default_rng(1).permutation(len(pairs)) / 1024, strict=True)))


def stub(scores: Any, num_labels: int = 1) -> StubModel:
    model = StubModel(scores)
    model.num_labels = num_labels
    return model


class Case(NamedTuple):
    evaluator: type
    data: tuple[Any, ...]
    options: dict[str, Any]
    make_model: Callable[[], Any]


CASES = {
    "binary": Case(
        CrossEncoderClassificationEvaluator, (make_pairs(NUMBER), BINARY_LABELS), {}, lambda: stub(TIED_SCORES)
    ),
    "multiclass": Case(
        CrossEncoderClassificationEvaluator, (make_pairs(NUMBER), CLASSES), {}, lambda: stub(LOGITS, num_labels=3)
    ),
    "correlation": Case(CrossEncoderCorrelationEvaluator, (make_pairs(NUMBER), GOLD), {}, lambda: stub(TIED_SCORES)),
    "labelled": Case(CrossEncoderRerankingEvaluator, (labelled_samples(),), {}, scorer),
    "labelled at 3": Case(CrossEncoderRerankingEvaluator, (labelled_samples(),), {"at_k": 3}, scorer),
    "ranked": Case(CrossEncoderRerankingEvaluator, (ranked_samples(),), {}, scorer),
    "ranked, not completed": Case(
        CrossEncoderRerankingEvaluator, (ranked_samples(),), {"always_rerank_positives": False, "at_k": 4}, scorer
    ),
    "mixed": Case(CrossEncoderRerankingEvaluator, (labelled_samples() + ranked_samples(),), {}, scorer),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_evaluator_is_exported_and_tested() -> None:
    exported = {name for name in fastce.evaluation.__all__ if name.startswith("CrossEncoder")}
    assert exported == {case.evaluator.__name__ for case in CASES.values()}


def read_csv(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@EVERY_CASE
@pytest.mark.parametrize("name", ["", "dev"])
def test_results_and_files_are_those_of_sentence_transformers(case: Case, name: str, tmp_path: Path) -> None:
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")
    expected_evaluator = getattr(evaluation, case.evaluator.__name__)(*case.data, name=name, **case.options)
    evaluator = case.evaluator(*case.data, name=name, **case.options)
    for steps in (20, -1):
        expected = expected_evaluator(case.make_model(), str(tmp_path / "expected"), 1, steps)
        results = evaluator(case.make_model(), tmp_path / "ours", 1, steps)

    assert list(results) == list(expected)
    assert all(type(value) is float for value in results.values())
    assert results == pytest.approx(expected)
    assert evaluator.primary_metric == expected_evaluator.primary_metric
    assert evaluator.primary_metric in results
    assert evaluator.greater_is_better
    [ours], [theirs] = (list((tmp_path / folder).iterdir()) for folder in ("ours", "expected"))
    assert ours.name == theirs.name
    (header, *rows), (expected_header, *expected_rows) = read_csv(ours), read_csv(theirs)
    assert header == expected_header
    assert np.array(rows, float) == pytest.approx(np.array(expected_rows, float))
    assert [row[:2] for row in rows] == [["1", "20"], ["1", "-1"]]


@pytest.mark.parametrize("case", [CASES["binary"], CASES["multiclass"], CASES["correlation"]])
def test_asks_the_model_as_sentence_transformers_does(case: Case) -> None:
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")
    for options in ({"show_progress_bar": False}, {"prompt_name": "p", "batch_size": 7, "show_progress_bar": True}):
        model, expected_model = case.make_model(), case.make_model()
        case.evaluator(*case.data, **options)(model)
        getattr(evaluation, case.evaluator.__name__)(*case.data, **options)(expected_model)
        assert model.calls == expected_model.calls
        assert len(model.calls) == 1


def test_ranking_asks_once_and_only_about_what_can_count() -> None:
    model = StubModel([0.1, 0.2, 0.3])
    samples = [
        {"query": "q1", "positive": [], "negative": ["a", "b"]},
        {"query": "q2", "positive": ["a"], "negative": ["b", "c"]},
    ]
    assert CrossEncoderRerankingEvaluator(samples)(model)["mrr@10"] == pytest.approx((0 + 1 / 3) / 2)
    options = {"prompt_name": None, "batch_size": 64, "convert_to_numpy": True, "show_progress_bar": False}
    assert model.calls == [([("q2", "a"), ("q2", "b"), ("q2", "c")], options)]


def test_a_ranking_without_any_relevant_document_is_zero() -> None:
    model = StubModel([])
    results = CrossEncoderRerankingEvaluator([{"query": "q", "positive": [], "negative": ["a"]}])(model)
    assert results == {"map": 0, "mrr@10": 0, "ndcg@10": 0}
    assert model.calls == []


def test_ties_count_against_the_model() -> None:
    sample = {"query": "q", "positive": ["a"], "negative": ["b", "c"]}
    results = CrossEncoderRerankingEvaluator([sample])(StubModel([0.5, 0.5, 0.1]))
    assert results == pytest.approx({"map": 1 / 2, "mrr@10": 1 / 2, "ndcg@10": (1 + 1 / np.log2(3)) / 2})


def test_pairs_of_equal_score_are_not_told_apart() -> None:
    results = CrossEncoderClassificationEvaluator(make_pairs(4), [1, 1, 0, 0])(stub([0.5] * 4))
    assert (results["accuracy"], results["f1"]) == (0.5, pytest.approx(2 / 3))


def test_a_single_document_ranks_first() -> None:
    sample = {"query": "q", "positive": "a", "documents": ["a"]}
    assert set(CrossEncoderRerankingEvaluator([sample])(StubModel([0.5])).values()) == {1.0}


def test_the_primary_metric_is_known_before_the_first_call_unless_it_depends_on_the_model() -> None:
    assert CrossEncoderCorrelationEvaluator(make_pairs(2), [0, 1], "dev").primary_metric == "dev_spearman"
    assert CrossEncoderRerankingEvaluator(labelled_samples(), 5, name="dev").primary_metric == "dev_ndcg@5"
    assert CrossEncoderClassificationEvaluator(make_pairs(2), [0, 1], name="dev").primary_metric is None


def test_arguments_by_position() -> None:
    correlation = CrossEncoderCorrelationEvaluator(make_pairs(2), [0, 1], "dev", "prompt", 7, True, False)
    assert correlation.predict_options() == {"prompt_name": "prompt", "batch_size": 7, "show_progress_bar": True}
    assert (correlation.name, correlation.write_csv) == ("dev", False)
    reranking = CrossEncoderRerankingEvaluator(labelled_samples(), 5, False, "dev", "prompt", 7, True, False)
    assert reranking.predict_options() == correlation.predict_options()
    assert (reranking.at_k, reranking.always_rerank_positives) == (5, False)
    assert (reranking.name, reranking.write_csv) == ("dev", False)
    with pytest.raises(TypeError, match="positional"):
        CrossEncoderClassificationEvaluator(make_pairs(2), [0, 1], "dev")  # type: ignore[misc]


def test_the_older_name_of_at_k() -> None:
    with pytest.warns(DeprecationWarning, match="mrr_at_k is now called at_k") as warned:
        evaluator = CrossEncoderRerankingEvaluator(labelled_samples(), mrr_at_k=3)
    assert warned[0].filename == __file__
    assert evaluator.primary_metric == "ndcg@3"


def test_from_input_examples() -> None:
    examples = [InputExample(texts=texts, label=label) for texts, label in zip(make_pairs(3), [0, 1, 0.5], strict=True)]
    results = CrossEncoderCorrelationEvaluator.from_input_examples(examples, name="dev")(stub([0.1, 0.9, 0.3]))
    assert results["dev_spearman"] == pytest.approx(1.0)


def test_logs_every_metric(caplog: pytest.LogCaptureFixture) -> None:
    sample = {"query": "q", "positive": ["a"], "documents": ["b", "a"]}
    with caplog.at_level(logging.INFO, logger="fastce.evaluation"):
        CrossEncoderRerankingEvaluator([sample], name="dev")(StubModel([0.9, 0.1]), None, 2)
    assert caplog.messages == [
        "CrossEncoderRerankingEvaluator dev after epoch 2: MAP 1.0000, MRR@10 1.0000, NDCG@10 1.0000, "
        "base_map 0.5000, base_mrr@10 0.5000, base_ndcg@10 0.6309"
    ]


def test_write_csv_can_be_turned_off(tmp_path: Path) -> None:
    evaluator = CrossEncoderClassificationEvaluator(make_pairs(2), [0, 1], write_csv=False)
    evaluator(stub([0.1, 0.9]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_measures_a_cross_encoder(tiny: Callable[..., str]) -> None:
    model = CrossEncoder(tiny(), device="cpu")
    documents = ["a man is eating", "the sky", "it rains today"]
    best = model.rank("rain", documents, top_k=1)[0]["corpus_id"]
    sample = {"query": "rain", "positive": [documents.pop(best)], "negative": documents}
    assert CrossEncoderRerankingEvaluator([sample])(model)["ndcg@10"] == 1.0


@pytest.mark.parametrize("evaluator", [CrossEncoderClassificationEvaluator, CrossEncoderCorrelationEvaluator])
def test_refuses_wrong_pairs(evaluator: Any) -> None:
    with pytest.raises(ValueError, match=r"^sentence_pairs: expected at least one pair, got none$"):
        evaluator([], [])
    with pytest.raises(ValueError, match=r"^sentence_pairs\[1\]: expected 2 texts, got 1$"):
        evaluator([["a", "b"], ["a"]], [0, 1])
    with pytest.raises(ValueError, match=r"^(labels|scores): expected 2, one per pair, got 1$"):
        evaluator(make_pairs(2), [0])


@pytest.mark.parametrize("label", [-1, 0.5])
def test_refuses_labels_that_are_no_classes(label: float) -> None:
    with pytest.raises(ValueError, match=rf"^labels\[1\]: expected a class, counted from 0, got {label}$"):
        CrossEncoderClassificationEvaluator(make_pairs(2), [1, label])


def test_refuses_what_does_not_fit_the_model() -> None:
    with pytest.raises(ValueError, match=r"^labels\[1\]: expected 0 or 1, got 2$"):
        CrossEncoderClassificationEvaluator(make_pairs(2), [1, 2])(stub([0.1, 0.9]))
    with pytest.raises(ValueError, match=r"^predict: expected scores of shape \[2, num_labels\], got \[2\]$"):
        CrossEncoderClassificationEvaluator(make_pairs(2), [1, 2])(stub([0.1, 0.9], num_labels=3))
    with pytest.raises(ValueError, match=r"^predict\[1\]: expected a finite number, got nan$"):
        CrossEncoderRerankingEvaluator([{"query": "q", "positive": "a", "negative": ["b"]}])(StubModel([0.1, np.nan]))


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], ValueError, "samples: expected at least one, got none"),
        (["q"], TypeError, r"samples\[0\]: expected a mapping, got str 'q'"),
        ({"id": {"query": "q"}}, ValueError, r"samples\['id'\]: expected the keys query, positive, got no 'positive'"),
        (
            [{"query": "q", "positive": ["a"]}],
            ValueError,
            r"samples\[0\]: expected one of the keys negative and documents, got neither",
        ),
        (
            [{"query": "q", "positive": ["a"], "negative": ["b"], "documents": ["b"]}],
            ValueError,
            r"samples\[0\]: expected one of the keys negative and documents, got both",
        ),
        (
            [{"query": "q", "positive": ["a"], "documents": "b"}],
            TypeError,
            r"samples\[0\]\['documents'\]: expected a list of texts, got str 'b'",
        ),
        (
            [{"query": "q", "positive": [5], "documents": ["b"]}],
            TypeError,
            r"samples\[0\]\['positive'\]\[0\]: expected str, got int 5",
        ),
    ],
)
def test_refuses_wrong_samples(samples: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        CrossEncoderRerankingEvaluator(samples)


def test_refuses_a_wrong_k() -> None:
    with pytest.raises(ValueError, match=r"^at_k: expected a positive whole number, got 0$"):
        CrossEncoderRerankingEvaluator(labelled_samples(), 0)
