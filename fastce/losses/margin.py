"""The loss of the margins between a positive document and negative ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastce.checks import describe
from fastce.losses.base import (
    Activation,
    Loss,
    ScoredPairs,
    check_finite_number,
    check_numbers,
    numbered,
    query_and_documents,
)
from fastce.training.input_example import InputExample


@dataclass(frozen=True)
class Margins:
    """By how much one pair should score higher than another.

    Attributes:
        positive: Numbers of the pairs that score higher, `[num_margins]`.
        negative: Numbers of the pairs that score lower, `[num_margins]`.
        sizes: By how much, `[num_margins]`, float32.
    """

    positive: Tensor
    negative: Tensor
    sizes: Tensor


class MarginMSELoss(Loss):
    """Squared error of the margins between the scores of a positive document and of negative ones.

    Distils a teacher of which only the differences of scores matter: https://arxiv.org/abs/2010.02666. It takes
    `InputExample(texts=[query, positive, negative_1, ..., negative_n], label=label)` with one of the labels

    - the margin, a number, for a single negative document,
    - `[margin_1, ..., margin_n]`,
    - `[score of the positive document, score of negative_1, ..., score of negative_n]`.

    Each example may have another number of negatives, and all margins of a batch count alike.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        **kwargs: Arguments of `torch.nn.MSELoss`.
    """

    def __init__(self, model: Any = None, activation_fn: Activation | None = None, **kwargs: Any):
        super().__init__(activation_fn)
        self.loss_fct = nn.MSELoss(**kwargs)

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each query with its documents, example after example; see `Loss.pairs`."""
        self.check_num_labels(num_labels)
        first: list[str] = []
        second: list[str] = []
        positive: list[int] = []
        negative: list[int] = []
        sizes: list[Tensor] = []
        for example, here in numbered(examples, place):
            query, *documents = query_and_documents(example, 2, here)
            num_negatives = len(documents) - 1
            sizes.append(margins(example.label, num_negatives, f"{here}: label"))
            positive += [len(first)] * num_negatives
            negative += range(len(first) + 1, len(first) + len(documents))
            first += [query] * len(documents)
            second += documents
        return ScoredPairs(first, second, Margins(torch.tensor(positive), torch.tensor(negative), torch.cat(sizes)))

    def forward(self, logits: Tensor, targets: Margins) -> Tensor:
        """The mean squared error of the margins of the logits, `[num_pairs]`."""
        device = logits.device
        scores = self.activated(logits)
        found = scores[targets.positive.to(device)] - scores[targets.negative.to(device)]
        loss: Tensor = self.loss_fct(found, targets.sizes.to(found))
        return loss


def margins(label: Any, num_negatives: int, place: str) -> Tensor:
    """Reads the label of one example as margins, `[num_negatives]`.

    Raises:
        TypeError: It is neither a number nor a list of numbers.
        ValueError: A number is infinite or NaN, or there are not as many as margins or as documents.
    """
    several = hasattr(label, "__len__") and getattr(label, "ndim", 1) > 0  # a tensor of one number has no length
    numbers = check_numbers(label, place) if several else [check_finite_number(label, place)]
    values = torch.tensor(numbers, dtype=torch.float)
    if len(numbers) == num_negatives:
        return values
    if len(numbers) == num_negatives + 1:
        return values[0] - values[1:]
    raise ValueError(f"{place}: expected {num_negatives} margins or {num_negatives + 1} scores, got {describe(label)}")
