"""Losses of one pair and its label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastce.checks import describe, is_sequence
from fastce.inputs import check_pair
from fastce.losses.base import Activation, Loss, ScoredPairs, check_finite_number, check_numbers, numbered
from fastce.training.input_example import InputExample

SUM_TOLERANCE = 1e-3
"""How far from 1 the sum of probabilities may be, which may have been rounded."""


class PointwiseLoss(Loss):
    """Any function of logits and labels as a loss: `InputExample(texts=[first, second], label=label)`.

    For a model with one label, a label is a number. For one with several, it is the number of a class, or a list of a
    number for each: 1 for those that hold and 0 for the others, several targets of a regression, or probabilities.

    Args:
        loss_fct: Takes logits and labels, `[num_pairs]` and float32 for a model with one label; for several,
            `[num_pairs, num_labels]` and class numbers `[num_pairs]`, or lists `[num_pairs, num_labels]` and float32.
            Returns a scalar.
        activation_fn: Applied to the logits before the loss; None applies nothing.
    """

    single_label: bool | None = None

    def __init__(self, loss_fct: Callable[[Tensor, Tensor], Tensor], activation_fn: Activation | None = None):
        super().__init__(activation_fn)
        self.loss_fct = loss_fct

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each example's two texts; see `Loss.pairs`. The targets are the labels, a number or a row for each."""
        labels: list[Any] = []
        check: Callable[[Any, int, str], Any] | None = None
        for example, here in numbered(examples, place):
            check_pair(example.texts, f"{here}: texts")
            label = example.label.tolist() if hasattr(example.label, "tolist") else example.label
            if check is None:
                check = label_check(label, num_labels)
                if check is not check_list:
                    self.check_num_labels(num_labels)
            labels.append(check(label, num_labels, f"{here}: label"))
        texts: list[Any] = [example.texts for example in examples]
        targets = torch.tensor(labels, dtype=torch.long if check is check_class else torch.float)
        return ScoredPairs([first for first, _ in texts], [second for _, second in texts], targets)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of the logits, `[num_pairs]` or `[num_pairs, num_labels]`, and the targets of `pairs`."""
        self.to(logits.device)  # weights of classes are where the loss was made
        return self.loss_fct(self.activation_fn(logits), targets.to(logits.device))


class BinaryCrossEntropyLoss(PointwiseLoss):
    """Binary cross-entropy for a logit and a label from 0 to 1, as in https://arxiv.org/abs/1901.04085, or for several.

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
        """Each example's two texts; see `Loss.pairs`. The targets are the labels, a number or a row for each."""
        scored = super().pairs(examples, num_labels, place)
        for example, row in enumerate(scored.targets.reshape(len(scored.first), -1).tolist()):
            for label in row:
                if not 0 <= label <= 1:
                    raise ValueError(f"{place}, example {example}: label: expected a number from 0 to 1, got {label:g}")
        return scored


class CrossEntropyLoss(PointwiseLoss):
    """Cross-entropy for several logits and the number of the right class, or a list with the probability of each.

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        **kwargs: Arguments of `torch.nn.CrossEntropyLoss`.
    """

    single_label = False

    def __init__(self, model: Any = None, activation_fn: Activation | None = None, **kwargs: Any):
        super().__init__(nn.CrossEntropyLoss(**kwargs), activation_fn)

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each example's two texts; see `Loss.pairs`. The targets are the labels, a number or a row for each."""
        scored = super().pairs(examples, num_labels, place)
        if scored.targets.ndim == 2:
            for example, row in enumerate(scored.targets.tolist()):
                if min(row) < 0 or abs(sum(row) - 1) > SUM_TOLERANCE:
                    raise ValueError(
                        f"{place}, example {example}: label: expected probabilities, with sum 1, got {row}"
                    )
        return scored


class ClassesOrListsLoss(PointwiseLoss):
    """What is learned where nobody says how: cross-entropy for classes, binary cross-entropy for lists."""

    single_label = False

    def __init__(self) -> None:
        super().__init__(nn.CrossEntropyLoss())
        self.of_lists = BinaryCrossEntropyLoss()

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """Each example's two texts; see `Loss.pairs`. The targets are the labels, a number or a row for each."""
        scored = super().pairs(examples, num_labels, place)
        return self.of_lists.pairs(examples, num_labels, place) if scored.targets.ndim == 2 else scored

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of the logits, `[num_pairs, num_labels]`, and the targets of `pairs`."""
        return self.of_lists(logits, targets) if targets.ndim == 2 else super().forward(logits, targets)


class MSELoss(PointwiseLoss):
    """Squared error of a logit and a number, or of several, such as a teacher's scores (https://arxiv.org/abs/2010.02666).

    Args:
        model: Not needed; taken so that scripts for sentence-transformers run.
        activation_fn: Applied to the logits before the loss; None applies nothing.
        **kwargs: Arguments of `torch.nn.MSELoss`.
    """

    single_label = True

    def __init__(self, model: Any = None, activation_fn: Activation | None = None, **kwargs: Any):
        super().__init__(nn.MSELoss(**kwargs), activation_fn)


OF_PROBLEMS: dict[str | None, Callable[[], Loss]] = {
    "single_label_classification": CrossEntropyLoss,
    "multi_label_classification": BinaryCrossEntropyLoss,
    "regression": MSELoss,
    None: ClassesOrListsLoss,
}
"""What a config says of several labels, as `problem_type`, and how they are learned."""


def make_loss(loss_fct: Callable[..., Tensor] | None, num_labels: int, problem_type: str | None = None) -> Loss:
    """What a caller gave as loss, as a Loss.

    Args:
        loss_fct: A Loss; any function of logits and labels; None for binary cross-entropy for one label, for several
            what `OF_PROBLEMS` says.
        num_labels: How many labels the model has.
        problem_type: What its config says of them, if anything.

    Raises:
        TypeError: It can't be called, or it is a class, or one of sentence-transformers.
        ValueError: It is for models with several labels.
    """
    if loss_fct is None:
        return BinaryCrossEntropyLoss() if num_labels == 1 else OF_PROBLEMS[problem_type]()
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


def label_check(label: Any, num_labels: int) -> Callable[[Any, int, str], Any]:
    """The check for a batch's labels, by the first one."""
    if num_labels == 1:
        return check_score
    return check_list if is_sequence(label) else check_class


def check_score(label: Any, num_labels: int, place: str) -> float:
    """Returns the label of a model with one as a number of Python.

    Raises:
        TypeError: It is no number.
        ValueError: It is infinite or NaN.
    """
    return check_finite_number(label, place)


def check_class(label: Any, num_labels: int, place: str) -> float:
    """Returns the number of a class as a number of Python.

    Raises:
        TypeError: It is no number.
        ValueError: There is no such class.
    """
    if is_sequence(label):
        raise TypeError(f"{place}: expected a class from 0 to {num_labels - 1}, got {describe(label)}")
    number = check_finite_number(label, place)
    if number != int(number) or not 0 <= number < num_labels:
        raise ValueError(f"{place}: expected a class from 0 to {num_labels - 1}, got {number}")
    return number


def check_list(label: Any, num_labels: int, place: str) -> list[float]:
    """Returns a number for each label.

    Raises:
        TypeError: It is no list, or holds something else than numbers.
        ValueError: There are more or fewer numbers, or one is infinite or NaN.
    """
    if not is_sequence(label) or len(label) != num_labels:
        error = ValueError if is_sequence(label) else TypeError
        raise error(f"{place}: expected a list of {num_labels} numbers, got {describe(label)}")
    return check_numbers(label, place)
