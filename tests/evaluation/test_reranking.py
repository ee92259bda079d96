from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_models import LookupModel, StubModel

from fastce.evaluation import CERerankingEvaluator


def sample(number_positive: int, number_negative: int, query: str = "q") -> dict[str, Any]:
    return {
        "query": query,
        "positive": [f"good {index}" for index in range(number_positive)],
        "negative": [f"bad {index}" for index in range(number_negative)],
    }


def test_mean_reciprocal_rank() -> None:
    evaluator = CERerankingEvaluator([sample(1, 2), sample(2, 2), sample(1, 1)])
    scores = [[0.5, 0.9, 0.1], [0.1, 0.2, 0.9, 0.8], [0.7, 0.6]]
    assert evaluator(StubModel(np.concatenate(scores))) == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)


@pytest.mark.parametrize(("mrr_at_k", "expected"), [(1, 0.0), (2, 0.0), (3, 1 / 3), (4, 1 / 3)])
def test_ranks_below_k_count_as_zero(mrr_at_k: int, expected: float) -> None:
    evaluator = CERerankingEvaluator([sample(1, 3)], mrr_at_k)
    assert evaluator.evaluate(StubModel([0.5, 0.9, 0.8, 0.1])) == {f"mrr@{mrr_at_k}": expected}


def test_asks_for_each_query_with_its_documents() -> None:
    model = StubModel([0.0] * 5)
    CERerankingEvaluator([sample(1, 2, "q1"), sample(1, 1, "q2")])(model)
    [(pairs, _)] = model.calls
    assert pairs == [("q1", "good 0"), ("q1", "bad 0"), ("q1", "bad 1"), ("q2", "good 0"), ("q2", "bad 0")]


def test_leaves_out_samples_without_positive_or_negative_documents() -> None:
    evaluator = CERerankingEvaluator([sample(0, 2), sample(1, 1), sample(2, 0)])
    assert evaluator(StubModel([0.1, 0.9])) == 0.5


def test_samples_as_a_dict_with_documents_as_sets() -> None:
    samples = {
        "id 1": {"query": "q1", "positive": {"a", "b"}, "negative": {"c", "d", "e"}},
        "id 2": {"query": "q2", "positive": ("a",), "negative": ["b"]},
    }
    table = {("q1", text): score for text, score in zip("abcde", [0.1, 0.2, 0.3, 0.4, 0.0], strict=True)}
    model = LookupModel(table | {("q2", "a"): 1.0, ("q2", "b"): 0.0})
    assert CERerankingEvaluator(samples)(model) == pytest.approx((1 / 3 + 1) / 2)


def plain_reciprocal_rank(scores: list[float], number_positive: int, at_k: int) -> float:
    ranking = sorted(range(len(scores)), key=lambda index: -scores[index])
    for rank, index in enumerate(ranking[:at_k], start=1):
        if index < number_positive:
            return 1 / rank
    return 0.0


documents = st.tuples(
    st.lists(st.integers(0, 6), min_size=1, max_size=4), st.lists(st.integers(0, 6), min_size=1, max_size=12)
)


@given(st.lists(documents, min_size=1, max_size=5), st.integers(1, 12))
def test_same_as_the_plain_loop(scored: list[tuple[list[int], list[int]]], at_k: int) -> None:
    samples = [sample(len(positive), len(negative)) for positive, negative in scored]
    scores = [float(score) for positive, negative in scored for score in positive + negative]
    expected = [plain_reciprocal_rank(positive + negative, len(positive), at_k) for positive, negative in scored]
    assert CERerankingEvaluator(samples, at_k)(StubModel(scores)) == pytest.approx(np.mean(expected))


def test_same_as_sentence_transformers() -> None:
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")
    generator = np.random.default_rng(11)
    samples = [sample(*generator.integers(1, 6, 2), query=f"q{index}") for index in range(30)]
    number = sum(len(each["positive"]) + len(each["negative"]) for each in samples)
    model = StubModel(generator.permutation(number) / number)
    reference = evaluation.CrossEncoderRerankingEvaluator(samples, at_k=3)(model)
    assert CERerankingEvaluator(samples, 3)(model) == pytest.approx(reference["mrr@3"])


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], ValueError, "samples: none of 0 has both positive and negative documents"),
        ([sample(1, 0), sample(0, 1)], ValueError, "samples: none of 2 has both positive and negative documents"),
        (
            [sample(1, 1), {"positive": ["a"], "negative": ["b"]}],
            ValueError,
            r"samples\[1\]: expected the keys query, positive, negative, got no 'query'",
        ),
        (
            {"id": {"query": "q", "positive": ["a"]}},
            ValueError,
            r"samples\['id'\]: expected the keys query, positive, negative, got no 'negative'",
        ),
        ([["q", "a", "b"]], TypeError, r"samples\[0\]: expected a mapping, got list \['q', 'a', 'b'\]"),
        ([sample(1, 1) | {"query": None}], TypeError, r"samples\[0\]\['query'\]: expected str, got None"),
        (
            [sample(1, 1) | {"positive": "a"}],
            TypeError,
            r"samples\[0\]\['positive'\]: expected a list of texts, got str 'a'",
        ),
        (
            [sample(1, 1) | {"negative": ["a", 5]}],
            TypeError,
            r"samples\[0\]\['negative'\]\[1\]: expected str, got int 5",
        ),
    ],
)
def test_refuses_wrong_samples(samples: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        CERerankingEvaluator(samples)


def test_refuses_a_wrong_k() -> None:
    with pytest.raises(ValueError, match=r"^mrr_at_k: expected a positive whole number, got 0$"):
        CERerankingEvaluator([sample(1, 1)], 0)
