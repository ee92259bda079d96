"""Losses of pairs of a query's documents, in their order of scores."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fastce.checks import check_positive, describe
from fastce.losses.base import Activation
from fastce.losses.listwise import ListwiseLoss
from fastce.losses.weighting import BaseWeightingScheme, NDCGLoss2PPScheme, NoWeightingScheme

LOGARITHMS = {"natural": 1.0, "binary": math.log(2)}
NDCG_LOSS2PP = NDCGLoss2PPScheme()


class LambdaLoss(ListwiseLoss):
    """Logistic losses of each two documents of which one is better, weighted for NDCG; the mean over the pairs.

    The LambdaLoss framework, https://doi.org/10.1145/3269206.3271784, with truncation as in its equation 18; see
    https://arxiv.org/abs/2005.10084 too.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        weighting_scheme: How much each pair counts; None counts all alike.
        k: Only pairs with a document among the model's first so many count; None counts all.
        sigma: Steepness of the logistic function.
        eps: The least DCG to divide gains by.
        reduction_log: "binary" or "natural": the logarithm of the loss.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once; None, or a number below 1, keeps those of
            all.

    Raises:
        TypeError: `weighting_scheme` is none, or `k` is no number.
        ValueError: `k` is less than 1, or `reduction_log` is neither.
    """

    def __init__(
        self,
        model: Any = None,
        weighting_scheme: BaseWeightingScheme | None = NDCG_LOSS2PP,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: Activation | None = None,
        mini_batch_size: int | None = None,
    ):
        super().__init__(activation_fn, mini_batch_size)
        scheme = NoWeightingScheme() if weighting_scheme is None else weighting_scheme
        if not isinstance(scheme, BaseWeightingScheme):
            raise TypeError(f"weighting_scheme: expected a scheme of fastce.losses, got {describe(scheme)}")
        if reduction_log not in LOGARITHMS:
            raise ValueError(f"reduction_log: expected one of {', '.join(LOGARITHMS)}, got {describe(reduction_log)}")
        self.weighting_scheme = scheme
        self.k = None if k is None else check_positive(k, "k")
        self.sigma = sigma
        self.eps = eps
        self.reduction_log = reduction_log
        if not isinstance(scheme, NoWeightingScheme):
            self.largest_label = 100.0  # gains, 2^label - 1, and their sums are to be finite in float32

    def list_loss(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """See `ListwiseLoss.list_loss`."""
        order = scores.detach().masked_fill(~mask, -math.inf).argsort(dim=1, descending=True, stable=True)
        scores, labels = scores.gather(1, order), labels.gather(1, order)  # padding stays last
        leads = scores[:, :, None] - scores[:, None, :]
        losses = -F.logsigmoid(self.sigma * leads) * self.weights(labels) / LOGARITHMS[self.reduction_log]
        counted = self.counted_pairs(labels, mask)
        return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)

    def weights(self, labels: Tensor) -> Tensor:
        """The weight of each two documents, with labels `[num_queries, max_documents]` in order of scores."""
        labels = labels.clamp(min=0.0)
        discount = torch.log2(torch.arange(2, labels.shape[1] + 2, dtype=torch.float32, device=labels.device))[None]
        gains = torch.exp2(labels) - 1
        best = (gains.sort(dim=1, descending=True).values / discount)[:, : self.k].sum(dim=1, keepdim=True)
        weights: Tensor = self.weighting_scheme(gains / best.clamp(min=self.eps), discount, labels)
        return weights

    def counted_pairs(self, labels: Tensor, mask: Tensor) -> Tensor:
        """Which pairs of documents count, `[num_queries, max_documents, max_documents]`."""
        counted = mask[:, :, None] & mask[:, None, :]
        if not self.weighting_scheme.every_pair:
            counted &= labels[:, :, None] > labels[:, None, :]
        at_top = torch.arange(labels.shape[1], device=labels.device) < (self.k or labels.shape[1])
        return counted & (at_top[:, None] | at_top)


class RankNetLoss(LambdaLoss):
    """Logistic losses of each two documents of which one is better, all counted alike; the mean over the pairs.

    RankNet, https://doi.org/10.1145/1102351.1102363.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        k: Only pairs with a document among the model's first so many count; None counts all.
        sigma: Steepness of the logistic function.
        eps: Not needed: there are no gains.
        reduction_log: "binary" or "natural": the logarithm of the loss.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once; None, or a number below 1, keeps those of
            all.
    """

    def __init__(
        self,
        model: Any = None,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: Activation | None = None,
        mini_batch_size: int | None = None,
    ):
        super().__init__(model, None, k, sigma, eps, reduction_log, activation_fn, mini_batch_size)
