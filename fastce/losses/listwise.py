"""Losses of a query's whole list of documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastce.losses.base import Activation, Loss, ScoredPairs, check_numbers, numbered, query_and_documents
from fastce.training.input_example import InputExample


@dataclass(frozen=True)
class Lists:
    """The labels of each query's documents.

    Attributes:
        labels: `[num_queries, max_documents]`, float32, 0 behind the end of a list.
        mask: Where there are documents, `[num_queries, max_documents]`.
    """

    labels: Tensor
    mask: Tensor


class ListwiseLoss(Loss):
    """Base of the losses of lists: `InputExample(texts=[query, doc_1, ..., doc_N], label=[n_1, ..., n_N])`.

    A higher label means a better document. Each query may have another number of documents.

    Args:
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once; None, or a number below 1, keeps those of
            all.

    Attributes:
        largest_label: Labels above it are refused.
    """

    largest_label: float = math.inf

    def __init__(self, activation_fn: Activation | None, mini_batch_size: int | None):
        super().__init__(activation_fn)
        self.mini_batch_size = None if mini_batch_size is None or mini_batch_size < 1 else mini_batch_size

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each query with its documents, query after query; see `Loss.pairs`."""
        self.check_num_labels(num_labels)
        first: list[str] = []
        second: list[str] = []
        labels: list[Tensor] = []
        for example, here in numbered(examples, place):
            query, *documents = query_and_documents(example, 1, here)
            numbers = self.check_labels(example.label, len(documents), f"{here}: label")
            labels.append(torch.tensor(numbers, dtype=torch.float))
            first += [query] * len(documents)
            second += documents
        padded = pad_sequence(labels, batch_first=True)
        lengths = torch.tensor([len(label) for label in labels])
        return ScoredPairs(first, second, Lists(padded, torch.arange(padded.shape[1]) < lengths[:, None]))

    def check_labels(self, labels: Any, num_documents: int, place: str) -> list[float]:
        """Turns the labels of one query into a list.

        Raises:
            TypeError: They are not a list of numbers.
            ValueError: There are more or fewer than documents, or one is infinite, NaN or too large.
        """
        numbers = check_numbers(labels, place)
        if len(numbers) != num_documents:
            raise ValueError(f"{place}: expected {num_documents} numbers, one for each document, got {len(numbers)}")
        for index, number in enumerate(numbers):
            if number > self.largest_label:
                raise ValueError(f"{place}[{index}]: expected at most {self.largest_label:g}, got {number}")
        return numbers

    def forward(self, logits: Tensor, targets: Lists) -> Tensor:
        """The loss of logits `[num_pairs]` in the order of `pairs`."""
        mask = targets.mask.to(logits.device)
        scores = self.activated(logits)
        padded = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device).masked_scatter(mask, scores)
        return self.list_loss(padded, targets.labels.to(logits.device), mask)

    def list_loss(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """The loss of scores and labels, a scalar.

        Args:
            scores: `[num_queries, max_documents]`, 0 behind the end of a list.
            labels: `[num_queries, max_documents]`, 0 behind the end of a list.
            mask: Where there are documents, `[num_queries, max_documents]`.
        """
        raise NotImplementedError


class ListNetLoss(ListwiseLoss):
    """Cross-entropy of the softmax of the scores against the softmax of the labels, the mean over queries.

    ListNet's top-one probabilities, https://doi.org/10.1145/1273496.1273513; see https://arxiv.org/abs/2005.10084 too.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once; None, or a number below 1, keeps those of
            all.
    """

    def __init__(self, model: Any = None, activation_fn: Activation | None = None, mini_batch_size: int | None = None):
        super().__init__(activation_fn, mini_batch_size)

    def list_loss(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """See `ListwiseLoss.list_loss`."""
        wanted = labels.masked_fill(~mask, -math.inf).softmax(dim=1)
        found = scores.masked_fill(~mask, -math.inf).log_softmax(dim=1)
        return -(wanted * found.masked_fill(~mask, 0.0)).sum(dim=1).mean()


class ADRMSELoss(ListwiseLoss):
    """Squared error of smooth ranks against those of the labels, discounted by rank, the mean over documents.

    ADR-MSE of Rank-DistiLLM, https://arxiv.org/abs/2405.07920. Documents of equal labels share their mean rank.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        alpha: Steepness of the smooth ranks: the larger, the closer to true ranks.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once; None, or a number below 1, keeps those of
            all.
    """

    def __init__(
        self,
        model: Any = None,
        alpha: float = 1.0,
        activation_fn: Activation | None = None,
        mini_batch_size: int | None = None,
    ):
        super().__init__(activation_fn, mini_batch_size)
        self.alpha = alpha

    def list_loss(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """See `ListwiseLoss.list_loss`."""
        wanted = ranks(labels, mask, partial(torch.heaviside, values=labels.new_tensor(0.5)))
        found = ranks(self.alpha * scores, mask, torch.sigmoid)
        errors = (wanted - found) ** 2 / torch.log2(wanted + 1)
        return (errors * mask).sum() / mask.sum()


def ranks(values: Tensor, mask: Tensor, step: Activation) -> Tensor:
    """The rank of each value in its list, 1 for the largest.

    Args:
        values: `[num_queries, max_documents]`.
        mask: Where there are documents, `[num_queries, max_documents]`.
        step: What a document's lead over another adds to the other's rank, 1/2 for a lead of 0: a step from 0 to 1
            makes true ranks and a sigmoid makes smooth ones.

    Returns:
        `[num_queries, max_documents]`, at least 1 where there are documents.
    """
    leads = step(values[:, None, :] - values[:, :, None]) * mask[:, None, :]
    return 0.5 + leads.sum(dim=2)  # a document's lead over itself adds the other half
