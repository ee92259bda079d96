"""Evaluators for `CrossEncoder.fit`: call one with a model, and get a number that is higher for a better model."""

from __future__ import annotations

from fastce.evaluation.binary import CEBinaryAccuracyEvaluator, CEBinaryClassificationEvaluator
from fastce.evaluation.correlation import CECorrelationEvaluator
from fastce.evaluation.multiclass import CEF1Evaluator, CESoftmaxAccuracyEvaluator
from fastce.evaluation.reranking import CERerankingEvaluator

__all__ = [
    "CEBinaryAccuracyEvaluator",
    "CEBinaryClassificationEvaluator",
    "CECorrelationEvaluator",
    "CEF1Evaluator",
    "CERerankingEvaluator",
    "CESoftmaxAccuracyEvaluator",
]
