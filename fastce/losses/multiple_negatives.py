"""Losses that take their negative documents from the other examples of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastce.checks import check_positive
from fastce.losses.base import Activation, Loss, ScoredPairs, numbered, query_and_documents
from fastce.training.input_example import InputExample


class MultipleNegativesRankingLoss(Loss):
    """Cross-entropy of the positive document among negative ones, some of them other examples' documents.

    From https://arxiv.org/abs/1705.00652, section 4.4. It takes `InputExample(texts=[anchor, positive, negative_1, ...,
    negative_n])`, with the same number of texts throughout a batch; labels are ignored. The negatives of other examples
    are drawn anew for each batch; `torch.manual_seed` fixes the draw.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        num_negatives: How many documents of other examples are drawn for each anchor; None takes all.
        scale: The activated logits are multiplied by this: the inverse of a softmax's temperature.
        activation_fn: Applied to the logits before the loss; None applies nothing.
    """

    def __init__(
        self,
        model: Any = None,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: Activation | None = torch.sigmoid,
    ):
        super().__init__(activation_fn)
        self.num_negatives = None if num_negatives is None else check_positive(num_negatives, "num_negatives")
        self.scale = scale or 1.0

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each anchor with its positive document, the drawn ones and its own negative ones; see `Loss.pairs`.

        The targets are the places of the positive documents among an anchor's, `[batch_size]`.
        """
        self.check_num_labels(num_labels)
        rows: list[list[str]] = []
        for example, here in numbered(examples, place):
            rows.append(query_and_documents(example, 1, here))
            if len(rows[-1]) != len(rows[0]):
                raise ValueError(f"{here}: texts: expected {len(rows[0])} texts, as in example 0, got {len(rows[-1])}")
        documents = [text for column in list(zip(*rows, strict=True))[1:] for text in column]
        first: list[str] = []
        second: list[str] = []
        for (anchor, positive, *negatives), drawn in zip(rows, self.draw(len(rows), len(rows[0]) - 1), strict=True):
            candidates = [positive, *(documents[index] for index in drawn), *negatives]
            first += [anchor] * len(candidates)
            second += candidates
        return ScoredPairs(first, second, torch.zeros(len(rows), dtype=torch.long))

    def draw(self, batch_size: int, num_documents: int) -> list[list[int]]:
        """Draws documents of other examples for each anchor, without replacement.

        Args:
            batch_size: How many anchors there are.
            num_documents: How many documents each example has.

        Returns:
            Indices `[batch_size, num_drawn]` into all documents, where all first documents come first, then all second.
        """
        of_others = ~torch.eye(batch_size, dtype=torch.bool).repeat(1, num_documents)
        number = (batch_size - 1) * num_documents
        if self.num_negatives is not None and self.num_negatives < number:
            drawn = torch.multinomial(of_others.float(), self.num_negatives)
        else:
            drawn = of_others.nonzero()[:, 1].view(batch_size, number)
        indices: list[list[int]] = drawn.tolist()
        return indices

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy of the anchors, of logits `[num_pairs]`."""
        scores = self.activated(logits) * self.scale
        return F.cross_entropy(scores.view(len(targets), -1), targets.to(logits.device))


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """The same loss with the memory of a mini-batch, whatever the batch size: https://arxiv.org/abs/2101.06983.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        num_negatives: How many documents of other examples are drawn for each anchor; None takes all.
        scale: The activated logits are multiplied by this: the inverse of a softmax's temperature.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        mini_batch_size: So many pairs have their activations kept at once.
        show_progress_bar: Not needed; training has a bar of its own.
    """

    def __init__(
        self,
        model: Any = None,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: Activation | None = torch.sigmoid,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
    ):
        super().__init__(model, num_negatives, scale, activation_fn)
        self.mini_batch_size = check_positive(mini_batch_size, "mini_batch_size")
