"""What all losses have in common: the pairs they want scored, and what they check in examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fastce.checks import check_number, describe, is_sequence
from fastce.inputs import check_texts
from fastce.scoring import check_activation
from fastce.training.input_example import InputExample

Activation: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ScoredPairs:
    """What a loss wants scored for one batch of examples.

    Attributes:
        first: The first texts of the pairs, `[num_pairs]`.
        second: The second texts, `[num_pairs]`.
        targets: What `Loss.forward` gets beside the logits; its tensors are on the CPU.
    """

    first: list[str]
    second: list[str]
    targets: Any


class Loss(nn.Module):
    """Says which pairs a batch of examples needs scored, and turns their logits into one number.

    Args:
        activation_fn: Applied to the logits before the loss; None applies nothing.

    Attributes:
        mini_batch_size: So many pairs have their activations kept at once; None keeps those of all.
        single_label: Whether the model must have one label, or else several; None takes either.
    """

    mini_batch_size: int | None = None
    single_label: bool | None = True

    def __init__(self, activation_fn: Activation | None = None):
        super().__init__()
        self.activation_fn: Activation = nn.Identity() if activation_fn is None else check_activation(activation_fn)

    def pairs(self, examples: Sequence[InputExample], num_labels: int, place: str) -> ScoredPairs:
        """The pairs to score for one batch.

        Args:
            examples: The batch.
            num_labels: How many labels the model has.
            place: Where the batch is, for error messages.

        Raises:
            TypeError: An example is no InputExample, or something in it has the wrong type; the message says where.
            ValueError: The model has the wrong number of labels, or an example has texts or labels that the loss can't
                learn from; the message says where.
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, targets: Any) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: Logits of the pairs, `[num_pairs]` for a model with one label, else `[num_pairs, num_labels]`.
            targets: `ScoredPairs.targets` of the same batch.
        """
        raise NotImplementedError

    def check_num_labels(self, num_labels: int) -> None:
        """Raises ValueError unless the loss is for models with so many labels."""
        if self.single_label is not None and self.single_label != (num_labels == 1):
            wanted = "1 label" if self.single_label else "several labels"
            raise ValueError(f"{type(self).__name__}: expected a model with {wanted}, got one with {num_labels}")

    def activated(self, logits: Tensor) -> Tensor:
        """The logits after the activation, in float32 or finer: losses add up many small differences."""
        return self.activation_fn(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def numbered(examples: Sequence[Any], place: str) -> Iterator[tuple[Any, str]]:
    """Yields each example with its place.

    Raises:
        TypeError: An example is no InputExample.
        ValueError: There is none.
    """
    if len(examples) == 0:
        raise ValueError(f"{place}: expected examples, got an empty batch")
    for index, example in enumerate(examples):
        here = f"{place}, example {index}"
        if not isinstance(example, InputExample) and not hasattr(example, "texts"):
            raise TypeError(f"{here}: expected InputExample, got {describe(example)}")
        yield example, here


def query_and_documents(example: Any, least: int, place: str) -> list[str]:
    """The texts of an example: a query and at least so many documents.

    Raises:
        TypeError: Something is not a text.
        ValueError: There are too few texts.
    """
    texts = check_texts(example.texts, f"{place}: texts")
    if len(texts) < 1 + least:
        raise ValueError(
            f"{place}: texts: expected a query and at least {least} of its documents, got {len(texts)} in all"
        )
    return texts


def check_numbers(values: Any, place: str) -> list[float]:
    """Turns a sequence of finite numbers into a list.

    Raises:
        TypeError: It is no sequence, or holds something else than numbers.
        ValueError: A number is infinite or NaN.
    """
    found = values.tolist() if hasattr(values, "tolist") else values
    if not is_sequence(found):
        raise TypeError(f"{place}: expected a list of numbers, got {describe(values)}")
    return [check_finite_number(value, f"{place}[{index}]") for index, value in enumerate(found)]


def check_finite_number(value: Any, place: str) -> float:
    """Returns `value` as a number of Python.

    Raises:
        TypeError: It is no number.
        ValueError: It is infinite or NaN.
    """
    number = check_number(value, place)
    if not math.isfinite(number):
        raise ValueError(f"{place}: expected a finite number, got {number}")
    return number
