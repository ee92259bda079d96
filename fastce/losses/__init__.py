"""Losses for `CrossEncoder.fit`, under the names and arguments of sentence-transformers."""

from __future__ import annotations

from fastce.losses.base import Loss, ScoredPairs
from fastce.losses.list_mle import ListMLELoss, PListMLELambdaWeight, PListMLELoss
from fastce.losses.listwise import ADRMSELoss, ListNetLoss
from fastce.losses.margin import MarginMSELoss
from fastce.losses.multiple_negatives import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from fastce.losses.pointwise import BinaryCrossEntropyLoss, CrossEntropyLoss, MSELoss, PointwiseLoss

__all__ = [
    "ADRMSELoss",
    "BinaryCrossEntropyLoss",
    "CachedMultipleNegativesRankingLoss",
    "CrossEntropyLoss",
    "ListMLELoss",
    "ListNetLoss",
    "Loss",
    "MSELoss",
    "MarginMSELoss",
    "MultipleNegativesRankingLoss",
    "PListMLELambdaWeight",
    "PListMLELoss",
    "PointwiseLoss",
    "ScoredPairs",
]
