"""Evaluators for `CrossEncoder.fit`: call one with a model, and get what is higher for a better model.

Those whose names begin with CE return a number, as in sentence-transformers 2.2; those whose names begin with
CrossEncoder return a dictionary, as in sentence-transformers 6.2, and say in `primary_metric` which key counts.
"""

from __future__ import annotations

from fastce.evaluation.binary import CEBinaryAccuracyEvaluator, CEBinaryClassificationEvaluator
from fastce.evaluation.classification import CrossEncoderClassificationEvaluator
from fastce.evaluation.correlation import CECorrelationEvaluator, CrossEncoderCorrelationEvaluator
from fastce.evaluation.multiclass import CEF1Evaluator, CESoftmaxAccuracyEvaluator
from fastce.evaluation.reranking import CERerankingEvaluator, CrossEncoderRerankingEvaluator

__all__ = [
    "CEBinaryAccuracyEvaluator",
    "CEBinaryClassificationEvaluator",
    "CECorrelationEvaluator",
    "CEF1Evaluator",
    "CERerankingEvaluator",
    "CESoftmaxAccuracyEvaluator",
    "CrossEncoderClassificationEvaluator",
    "CrossEncoderCorrelationEvaluator",
    "CrossEncoderRerankingEvaluator",
]
