"""How much each pair of documents counts in `LambdaLoss`.

The schemes of The LambdaLoss Framework for Ranking Metric Optimization, https://doi.org/10.1145/3269206.3271784.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BaseWeightingScheme(nn.Module):
    """Base of the schemes.

    Attributes:
        every_pair: Whether all pairs count, a document with itself too, or only those whose first document is better.
    """

    every_pair: bool = False

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """Weights that broadcast to `[num_queries, max_documents, max_documents]`.

        Documents are in the order of their scores, best first.

        Args:
            gain: 2^label - 1 of each document over the best DCG, `[num_queries, max_documents]`.
            discount: log2(1 + rank), `[1, max_documents]`.
            true_sorted: Labels, negative ones as 0, `[num_queries, max_documents]`.
        """
        raise NotImplementedError


class NoWeightingScheme(BaseWeightingScheme):
    """All pairs count alike: RankNet."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """See `BaseWeightingScheme.forward`."""
        return gain.new_ones(())


class NDCGLoss1Scheme(BaseWeightingScheme):
    """NDCG-Loss1: each pair counts by what its first document adds to NDCG; a coarse bound."""

    every_pair = True

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """See `BaseWeightingScheme.forward`."""
        return (gain / discount)[:, :, None]


class NDCGLoss2Scheme(BaseWeightingScheme):
    """NDCG-Loss2: a pair counts by its difference of gains, and the more the fewer ranks are between."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """See `BaseWeightingScheme.forward`."""
        return by_distance(discount) * differences(gain)


class LambdaRankScheme(BaseWeightingScheme):
    """LambdaRank: a pair counts by how much NDCG changes when its documents change places."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """See `BaseWeightingScheme.forward`."""
        return differences(1 / discount) * differences(gain)


class NDCGLoss2PPScheme(BaseWeightingScheme):
    """NDCG-Loss2++: the sum of NDCG-Loss2 and LambdaRank, the best in the paper.

    Args:
        mu: How much NDCG-Loss2 counts.
    """

    def __init__(self, mu: float = 10.0):
        super().__init__()
        self.mu = mu

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """See `BaseWeightingScheme.forward`."""
        return (self.mu * by_distance(discount) + differences(1 / discount)) * differences(gain)


def differences(values: Tensor) -> Tensor:
    """Absolute differences of each two values, `[rows, size]` to `[rows, size, size]`."""
    return (values[:, :, None] - values[:, None, :]).abs()


def by_distance(discount: Tensor) -> Tensor:
    """How much the inverse discount falls at the rank that is the distance of two ranks, 0 for a distance of 0.

    Args:
        discount: Discounts, `[1, max_documents]`.

    Returns:
        `[max_documents, max_documents]`.
    """
    inverse = 1 / discount[0]
    falls = F.pad((inverse[1:] - inverse[:-1]).abs(), (1, 0))
    positions = torch.arange(len(falls), device=falls.device)
    return falls[(positions[:, None] - positions).abs()]
