from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference_losses import Make, as_columns, assert_equals_reference, gradient_is_right
from torch import Tensor, nn
from torch.nn import functional as F

from fastce import InputExample
from fastce.losses import BinaryCrossEntropyLoss, CrossEntropyLoss, Loss, MSELoss, PointwiseLoss
from fastce.losses.pointwise import make_loss


def examples(labels: list[Any]) -> list[InputExample]:
    return [InputExample(texts=[f"a{number}", f"b{number}"], label=label) for number, label in enumerate(labels)]


SCORES = examples([0.0, 1.0, 0.3, 0.75, 1.0, 0.0])
CLASSES = examples([0, 2, 1, 2, 0])


@pytest.mark.parametrize(
    ("make", "num_labels"),
    [
        (lambda losses, model: losses.BinaryCrossEntropyLoss(model), 1),
        (lambda losses, model: losses.BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(4)), 1),
        (lambda losses, model: losses.BinaryCrossEntropyLoss(model, nn.Tanh(), reduction="sum"), 1),
        (lambda losses, model: losses.MSELoss(model), 1),
        (lambda losses, model: losses.MSELoss(model, activation_fn=nn.Sigmoid()), 1),
        (lambda losses, model: losses.MSELoss(model, reduction="sum"), 1),
        (lambda losses, model: losses.CrossEntropyLoss(model), 3),
        (lambda losses, model: losses.CrossEntropyLoss(model, nn.Sigmoid(), label_smoothing=0.1), 3),
        (lambda losses, model: losses.CrossEntropyLoss(model, weight=torch.tensor([1.0, 2.0, 0.5])), 3),
    ],
)
def test_same_as_sentence_transformers(make: Make, num_labels: int) -> None:
    assert_equals_reference(make, SCORES if num_labels == 1 else CLASSES, as_columns, num_labels)


@pytest.mark.parametrize("loss", [BinaryCrossEntropyLoss(pos_weight=torch.tensor(4.0).double()), MSELoss()])
def test_gradient(loss: Loss) -> None:
    assert gradient_is_right(loss, SCORES)


def test_gradient_for_classes() -> None:
    assert gradient_is_right(CrossEntropyLoss(), CLASSES, 3)


def test_values() -> None:
    for loss, expected in ((BinaryCrossEntropyLoss(), math.log(2)), (MSELoss(), 0.25)):
        scored = loss.pairs(examples([0.5]), 1, "batch")
        assert float(loss(torch.zeros(1), scored.targets)) == pytest.approx(expected)
    scored = CrossEntropyLoss().pairs(examples([1]), 4, "batch")
    assert float(CrossEntropyLoss()(torch.zeros(1, 4), scored.targets)) == pytest.approx(math.log(4))


def test_pairs() -> None:
    scored = MSELoss().pairs(SCORES, 1, "batch")
    assert (scored.first[:2], scored.second[:2]) == (["a0", "a1"], ["b0", "b1"])
    assert torch.equal(scored.targets, torch.tensor([0.0, 1.0, 0.3, 0.75, 1.0, 0.0]))
    classes = CrossEntropyLoss().pairs(CLASSES, 3, "batch").targets
    assert torch.equal(classes, torch.tensor([0, 2, 1, 2, 0]))
    assert classes.dtype == torch.long


def test_wraps_any_function() -> None:
    def seen(logits: Tensor, labels: Tensor) -> Tensor:
        return F.l1_loss(logits, labels)

    loss = make_loss(seen, 1)
    scored = loss.pairs(examples([0.0, 2.0]), 1, "batch")
    assert float(loss(torch.tensor([1.0, -1.0]), scored.targets)) == 2.0
    squared = PointwiseLoss(nn.MSELoss(), nn.ReLU())
    assert float(squared(torch.tensor([1.0, -1.0]), scored.targets)) == 2.5


def test_makes_a_loss() -> None:
    assert type(make_loss(None, 1)) is BinaryCrossEntropyLoss
    assert type(make_loss(None, 3, "single_label_classification")) is CrossEntropyLoss
    assert type(make_loss(None, 3, "multi_label_classification")) is BinaryCrossEntropyLoss
    assert type(make_loss(None, 3, "regression")) is MSELoss
    loss = MSELoss()
    assert make_loss(loss, 1) is loss
    with pytest.raises(TypeError, match=r"^loss_fct: expected a loss, got the class; write MSELoss\(\)$"):
        make_loss(MSELoss, 1)
    with pytest.raises(TypeError, match=r"^loss_fct: expected a loss or a function of logits and labels, got int 5$"):
        make_loss(5, 1)


@pytest.mark.parametrize(
    ("texts", "label", "num_labels", "error", "message"),
    [
        (["a"], 1, 1, ValueError, "texts: expected 2 texts, got 1"),
        (["a", "b", "c"], 1, 1, ValueError, "texts: expected 2 texts, got 3"),
        (["a", None], 1, 1, TypeError, r"texts\[1\]: expected str, got None"),
        (None, 1, 1, TypeError, "texts: expected a pair of texts, got None"),
        (["a", "b"], "yes", 1, TypeError, "label: expected a number, got str 'yes'"),
        (["a", "b"], [1, 0], 1, TypeError, r"label: expected a number, got list \[1, 0\]"),
        (["a", "b"], math.nan, 1, ValueError, "label: expected a finite number, got nan"),
        (["a", "b"], np.float32(np.inf), 3, ValueError, "label: expected a finite number, got inf"),
        (["a", "b"], 3, 3, ValueError, "label: expected a class from 0 to 2, got 3"),
        (["a", "b"], -1, 3, ValueError, "label: expected a class from 0 to 2, got -1"),
        (["a", "b"], 0.5, 3, ValueError, "label: expected a class from 0 to 2, got 0.5"),
    ],
)
def test_refuses_wrong_examples(texts: Any, label: Any, num_labels: int, error: type[Exception], message: str) -> None:
    loss = PointwiseLoss(nn.MSELoss())
    with pytest.raises(error, match=f"^batch 0, example 1: {message}$"):
        loss.pairs([*examples([1]), InputExample(texts=texts, label=label)], num_labels, "batch 0")


@pytest.mark.parametrize(
    ("loss", "num_labels", "wanted"),
    [(BinaryCrossEntropyLoss(), 3, "1 label"), (MSELoss(), 2, "1 label"), (CrossEntropyLoss(), 1, "several labels")],
)
def test_refuses_other_models(loss: Loss, num_labels: int, wanted: str) -> None:
    message = f"^{type(loss).__name__}: expected a model with {wanted}, got one with {num_labels}$"
    with pytest.raises(ValueError, match=message):
        loss.pairs(examples([1]), num_labels, "batch 0")


LISTS = [[1, 0, 1], (0.0, 0.5, 0.25), np.array([0, 0, 1]), torch.tensor([1.0, 1.0, 0.0])]
TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.5, 0.25], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        (make_loss(None, 3), F.binary_cross_entropy_with_logits),
        (make_loss(None, 3, "multi_label_classification"), F.binary_cross_entropy_with_logits),
        (make_loss(None, 3, "regression"), F.mse_loss),
        (BinaryCrossEntropyLoss(), F.binary_cross_entropy_with_logits),
        (MSELoss(), F.mse_loss),
        (make_loss(nn.L1Loss(), 3), F.l1_loss),
    ],
)
def test_labels_that_are_lists(loss: Loss, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    scored = loss.pairs(examples(LISTS), 3, "batch")
    assert torch.equal(scored.targets, TARGETS)
    logits = torch.randn(4, 3)
    assert torch.equal(loss(logits, scored.targets), function(logits, TARGETS))


def test_classes_are_still_classes_where_nobody_says_how_to_learn() -> None:
    loss, logits = make_loss(None, 3), torch.randn(5, 3)
    scored = loss.pairs(CLASSES, 3, "batch")
    assert torch.equal(loss(logits, scored.targets), F.cross_entropy(logits, torch.tensor([0, 2, 1, 2, 0])))


def test_lists_of_probabilities() -> None:
    loss, logits = CrossEntropyLoss(), torch.randn(2, 3)
    targets = torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    scored = loss.pairs(examples(targets.tolist()), 3, "batch")
    assert torch.equal(loss(logits, scored.targets), F.cross_entropy(logits, targets))
    for label in ([1, 0, 1], [1.5, -0.5, 0]):
        with pytest.raises(ValueError, match=r"batch, example 1: label: expected probabilities, with sum 1, got \["):
            loss.pairs(examples([[1, 0, 0], label]), 3, "batch")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([[1, 0, 0], 2], TypeError, "label: expected a list of 3 numbers, got int 2"),
        ([2, [1, 0, 0]], TypeError, r"label: expected a class from 0 to 2, got list \[1, 0, 0\]"),
        ([[1, 0, 0], [1, 0]], ValueError, r"label: expected a list of 3 numbers, got list \[1, 0\]"),
        ([[1, 0, 0], [1, 0, "1"]], TypeError, r"label\[2\]: expected a number, got str '1'"),
        ([[1, 0, 0], [1, 0, math.nan]], ValueError, r"label\[2\]: expected a finite number, got nan"),
        ([[1, 0, 0], {0, 2}], TypeError, r"label: expected a list of 3 numbers, got set"),
    ],
)
def test_refuses_lists_that_fit_nothing(labels: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^batch, example 1: {message}"):
        PointwiseLoss(nn.MSELoss()).pairs(examples(labels), 3, "batch")
