"""Losses for `CrossEncoder.fit`, under the names and arguments of sentence-transformers."""

from __future__ import annotations

from fastce.losses.base import Loss, ScoredPairs
from fastce.losses.lambda_loss import LambdaLoss, RankNetLoss
from fastce.losses.list_mle import ListMLELoss, PListMLELambdaWeight, PListMLELoss
from fastce.losses.listwise import ADRMSELoss, ListNetLoss
from fastce.losses.margin import MarginMSELoss
from fastce.losses.multiple_negatives import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from fastce.losses.pointwise import BinaryCrossEntropyLoss, CrossEntropyLoss, MSELoss, PointwiseLoss
from fastce.losses.weighting import (
    BaseWeightingScheme,
    LambdaRankScheme,
    NDCGLoss1Scheme,
    NDCGLoss2PPScheme,
    NDCGLoss2Scheme,
    NoWeightingScheme,
)

__all__ = [
    "ADRMSELoss",
    "BaseWeightingScheme",
    "BinaryCrossEntropyLoss",
    "CachedMultipleNegativesRankingLoss",
    "CrossEntropyLoss",
    "LambdaLoss",
    "LambdaRankScheme",
    "ListMLELoss",
    "ListNetLoss",
    "Loss",
    "MSELoss",
    "MarginMSELoss",
    "MultipleNegativesRankingLoss",
    "NDCGLoss1Scheme",
    "NDCGLoss2PPScheme",
    "NDCGLoss2Scheme",
    "NoWeightingScheme",
    "PListMLELambdaWeight",
    "PListMLELoss",
    "PointwiseLoss",
    "RankNetLoss",
    "ScoredPairs",
]
