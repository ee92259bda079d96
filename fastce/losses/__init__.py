"""Losses for `CrossEncoder.fit`, under the names and arguments of sentence-transformers."""

from __future__ import annotations

from fastce.losses.base import Loss, ScoredPairs
from fastce.losses.margin import MarginMSELoss
from fastce.losses.pointwise import BinaryCrossEntropyLoss, CrossEntropyLoss, MSELoss, PointwiseLoss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "Loss",
    "MSELoss",
    "MarginMSELoss",
    "PointwiseLoss",
    "ScoredPairs",
]
