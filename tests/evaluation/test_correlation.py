from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from stub_models import StubModel, make_pairs

from fastce.evaluation import CECorrelationEvaluator

GENERATOR = np.random.default_rng(5)
GOLD = np.round(GENERATOR.random(50) * 5, 1)
PREDICTED = (GOLD**2 + GENERATOR.normal(size=50)).astype(np.float32)


def test_correlations_are_those_of_scipy() -> None:
    evaluator = CECorrelationEvaluator(make_pairs(50), GOLD.tolist())
    assert evaluator.evaluate(StubModel(PREDICTED)) == {
        "pearson": pearsonr(GOLD, PREDICTED)[0],
        "spearman": spearmanr(GOLD, PREDICTED)[0],
    }


def test_returns_the_rank_correlation() -> None:
    evaluator = CECorrelationEvaluator(make_pairs(4), [1.0, 2.0, 3.0, 4.0])
    assert evaluator(StubModel([1.0, 10.0, 100.0, 1000.0])) == pytest.approx(1.0)
    assert evaluator(StubModel([4.0, 3.0, 2.0, 1.0])) == pytest.approx(-1.0)


def test_correlations_are_those_of_sentence_transformers() -> None:
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")
    model = StubModel(PREDICTED)
    reference = evaluation.CrossEncoderCorrelationEvaluator(make_pairs(50), GOLD.tolist())(model)
    results = CECorrelationEvaluator(make_pairs(50), GOLD.tolist()).evaluate(model)
    assert list(results.values()) == pytest.approx([reference["pearson"], reference["spearman"]])


def test_refuses_a_single_pair() -> None:
    with pytest.raises(ValueError, match=r"^sentence_pairs: expected at least two pairs, got one$"):
        CECorrelationEvaluator(make_pairs(1), [0.5])
