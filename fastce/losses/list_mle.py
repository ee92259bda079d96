"""Losses of the likelihood of a query's ranking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastce.losses.base import Activation
from fastce.losses.listwise import ListwiseLoss


class PListMLELambdaWeight(nn.Module):
    """How much each rank counts in `PListMLELoss`: 2^(num_documents - rank) - 1, or by a function.

    Args:
        rank_discount_fn: Takes where there are documents, a boolean tensor `[num_queries, max_documents]`, and returns
            weights of the same shape, 0 where there is none.
    """

    def __init__(self, rank_discount_fn: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.rank_discount_fn = rank_discount_fn

    def forward(self, mask: Tensor) -> Tensor:
        """Weights `[num_queries, max_documents]`; those of more than 127 documents are divided by a power of two.

        Args:
            mask: Where there are documents, `[num_queries, max_documents]`.
        """
        if self.rank_discount_fn is not None:
            return self.rank_discount_fn(mask)
        lengths = mask.sum(dim=1, keepdim=True)
        excess = (lengths - 127).clamp(min=0)  # the sum of the weights is to be finite in float32
        weights = torch.exp2(lengths - mask.cumsum(dim=1) - excess) - torch.exp2(-excess)
        return weights * mask


EXPONENTIAL_WEIGHT = PListMLELambdaWeight()


class PListMLELoss(ListwiseLoss):
    """Negative log-likelihood of the labels' ranking, where errors at the top count more, the mean over queries.

    Position-aware ListMLE, https://auai.org/uai2014/proceedings/individuals/164.pdf.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        lambda_weight: How much each rank counts; None counts all alike, as `ListMLELoss` does.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once; None, or a number below 1, keeps those of
            all.
        respect_input_order: Whether the documents come best first; False sorts them by their labels.
    """

    def __init__(
        self,
        model: Any = None,
        lambda_weight: PListMLELambdaWeight | None = EXPONENTIAL_WEIGHT,
        activation_fn: Activation | None = None,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ):
        super().__init__(activation_fn, mini_batch_size)
        self.lambda_weight = lambda_weight
        self.respect_input_order = respect_input_order

    def list_loss(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """See `ListwiseLoss.list_loss`."""
        if not self.respect_input_order:
            order = labels.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
            scores = scores.gather(1, order)
        # logcumsumexp has no gradient at -inf, so no document is the smallest number instead
        backwards = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).flip(1)
        log_probabilities = scores - backwards.logcumsumexp(dim=1).flip(1)
        if self.lambda_weight is not None:
            weights = self.lambda_weight(mask)
            # a list of one document has no weight at all
            log_probabilities = log_probabilities * (weights / (weights.sum(dim=1, keepdim=True) + 1e-10))
        return -log_probabilities.masked_fill(~mask, 0.0).sum(dim=1).mean()


class ListMLELoss(PListMLELoss):
    """Negative log-likelihood of the labels' ranking under the scores, the mean over queries.

    ListMLE, https://doi.org/10.1145/1390156.1390306: the best document is drawn with the probability of its softmax,
    then the next from those that are left, and so on.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once; None, or a number below 1, keeps those of
            all.
        respect_input_order: Whether the documents come best first; False sorts them by their labels.
    """

    def __init__(
        self,
        model: Any = None,
        activation_fn: Activation | None = None,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ):
        super().__init__(model, None, activation_fn, mini_batch_size, respect_input_order)
