"""Losses of one pair and its label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastce.inputs import check_pair, describe
from fastce.losses.base import Activation, Loss, ScoredPairs, check_finite, numbered
from fastce.training.input_example import InputExample


class PointwiseLoss(Loss):
    """Any function of logits and labels as a loss: `InputExample(texts=[first, second], label=number)`.

    Args:
        loss_fct: Takes logits and labels, `[num_pairs]` and float32 for a model with one label; for several,
            `[num_pairs, num_labels]` and class numbers `[num_pairs]`. Returns a scalar.
        activation_fn: Applied to the logits before the loss; None applies nothing.
    """

    single_label: bool | None = None

    def __init__(self, loss_fct: Callable[[Tensor, Tensor], Tensor], activation_fn: Activation | None = None):
        super().__init__(activation_fn)
        self.loss_fct = loss_fct

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each example's two texts; see `Loss.pairs`. The targets are the labels, `[num_pairs]`."""
        self.check_num_labels(num_labels)
        labels = []
        for example, here in numbered(examples, place):
            check_pair(example.texts, f"{here}: texts")
            labels.append(check_label(example.label, num_labels, here))
        texts: list[Any] = [example.texts for example in examples]
        dtype = torch.float if num_labels == 1 else torch.long
        targets = torch.tensor(labels, dtype=dtype)
        return ScoredPairs([first for first, _ in texts], [second for _, second in texts], targets)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of the logits, `[num_pairs]` or `[num_pairs, num_labels]`, and the labels, `[num_pairs]`."""
        self.to(logits.device)  # weights of classes are where the loss was made
        return self.loss_fct(self.activation_fn(logits), targets.to(logits.device))


class BinaryCrossEntropyLoss(PointwiseLoss):
    """Binary cross-entropy for one logit and a label from 0 to 1, as in https://arxiv.org/abs/1901.04085.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        pos_weight: How much more positive examples count, a tensor with one number.
        **kwargs: Other arguments of `torch.nn.BCEWithLogitsLoss`.
    """

    single_label = True

    def __init__(
        self,
        model: Any = None,
        activation_fn: Activation | None = None,
        pos_weight: Tensor | None = None,
        **kwargs: Any,
    ):
        super().__init__(nn.BCEWithLogitsLoss(pos_weight=pos_weight, **kwargs), activation_fn)

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each example's two texts; see `Loss.pairs`. The targets are the labels, `[num_pairs]`."""
        scored = super().pairs(examples, num_labels, place)
        for index, label in enumerate(scored.targets.tolist()):
            if not 0 <= label <= 1:
                raise ValueError(f"{place}, example {index}: label: expected a number from 0 to 1, got {label:g}")
        return scored


class CrossEntropyLoss(PointwiseLoss):
    """Cross-entropy for several logits and the number of the right class.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        **kwargs: Arguments of `torch.nn.CrossEntropyLoss`.
    """

    single_label = False

    def __init__(self, model: Any = None, activation_fn: Activation | None = None, **kwargs: Any):
        super().__init__(nn.CrossEntropyLoss(**kwargs), activation_fn)


class MSELoss(PointwiseLoss):
    """Squared error of one logit and a number, such as a teacher's score, as in https://arxiv.org/abs/2010.02666.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        **kwargs: Arguments of `torch.nn.MSELoss`.
    """

    single_label = True

    def __init__(self, model: Any = None, activation_fn: Activation | None = None, **kwargs: Any):
        super().__init__(nn.MSELoss(**kwargs), activation_fn)


def make_loss(loss_fct: Callable[..., Tensor] | None, num_labels: int) -> Loss:
    """What a caller gave as loss, as a Loss.

    Args:
        loss_fct: A Loss; any function of logits and labels; None for binary cross-entropy for one label,
            cross-entropy for several.
        num_labels: How many labels the model has.

    Raises:
        TypeError: It can't be called, or it is a class, or one of sentence-transformers.
        ValueError: It is for models with several labels.
    """
    if loss_fct is None:
        return BinaryCrossEntropyLoss() if num_labels == 1 else CrossEntropyLoss()
    if isinstance(loss_fct, Loss):
        return loss_fct
    if type(loss_fct).__module__.startswith("sentence_transformers."):
        name = type(loss_fct).__name__
        raise TypeError(f"loss_fct: {name} of sentence-transformers needs its trainer; take fastce.losses.{name}")
    if isinstance(loss_fct, nn.CrossEntropyLoss) and num_labels == 1:
        raise ValueError("loss_fct: CrossEntropyLoss needs a model with several labels, this one has 1")
    if isinstance(loss_fct, type):
        raise TypeError(f"loss_fct: expected a loss, got the class; write {loss_fct.__name__}()")
    if not callable(loss_fct):
        raise TypeError(f"loss_fct: expected a loss or a function of logits and labels, got {describe(loss_fct)}")
    return PointwiseLoss(loss_fct)


def check_label(label: Any, num_labels: int, place: str) -> float:
    """Returns a label as a number of Python.

    Raises:
        TypeError: It is no number.
        ValueError: A model with so many labels can't learn it.
    """
    number = check_finite(label, f"{place}: label")
    if num_labels > 1 and (number != int(number) or not 0 <= number < num_labels):
        raise ValueError(f"{place}: label: expected a class from 0 to {num_labels - 1}, got {number}")
    return number
