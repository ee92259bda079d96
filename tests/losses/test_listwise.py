from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from ranking_cases import CHANGES, LABELS
from reference_losses import Make, as_lists, assert_equals_reference, gradient_is_right, ranking
from torch import nn

from fastce import InputExample
from fastce.losses import ADRMSELoss, ListNetLoss, Loss

MAKERS: dict[str, Make] = {
    "ListNet": lambda losses, model: losses.ListNetLoss(model),
    "ListNet, sigmoid": lambda losses, model: losses.ListNetLoss(model, nn.Sigmoid()),
    "ADR-MSE": lambda losses, model: losses.ADRMSELoss(model),
    "ADR-MSE, steep": lambda losses, model: losses.ADRMSELoss(model, alpha=4.0),
    "ADR-MSE, sigmoid": lambda losses, model: losses.ADRMSELoss(model, activation_fn=nn.Sigmoid()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("maker", MAKERS)
def test_same_as_sentence_transformers(maker: str, labels: str, change: str) -> None:
    assert_equals_reference(MAKERS[maker], ranking(LABELS[labels]), as_lists, change=CHANGES[change])


@pytest.mark.parametrize("loss", [ListNetLoss(), ADRMSELoss(alpha=2.0)])
@pytest.mark.parametrize("labels", LABELS)
def test_gradient(loss: Loss, labels: str) -> None:
    assert gradient_is_right(loss, ranking(LABELS[labels]))


def loss_of(loss: Loss, labels: list[list[float]], logits: list[float]) -> float:
    scored = loss.pairs(ranking(labels), 1, "batch")
    return float(loss(torch.tensor(logits), scored.targets))


def test_list_net_values() -> None:
    # the entropy of the labels is the least cross-entropy, and a single document has none
    assert loss_of(ListNetLoss(), [[2.0, 2.0]], [1.0, 1.0]) == pytest.approx(math.log(2))
    assert loss_of(ListNetLoss(), [[2.0, 2.0], [1.0]], [1.0, 1.0, 9.0]) == pytest.approx(math.log(2) / 2)


def test_adr_mse_values() -> None:
    assert loss_of(ADRMSELoss(), [[1.0, 0.0], [3.0]], [50.0, -50.0, 7.0]) == pytest.approx(0.0)
    # both of rank 1.5 where 1 and 2 are wanted
    expected = (0.25 / math.log2(2) + 0.25 / math.log2(3)) / 2
    assert loss_of(ADRMSELoss(), [[1.0, 0.0]], [0.0, 0.0]) == pytest.approx(expected)


def test_pairs() -> None:
    scored = ListNetLoss().pairs(ranking([[3, 1], [2]]), 1, "batch")
    assert (scored.first, scored.second) == (["q0", "q0", "q1"], ["q0 d0", "q0 d1", "q1 d0"])
    assert scored.targets.labels.tolist() == [[3.0, 1.0], [2.0, 0.0]]
    assert scored.targets.mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("label", [(1, 0), np.array([1, 0]), np.array([1.0, 0.0]), torch.tensor([1.0, 0.0])])
def test_takes_labels_in_any_sequence(label: Any) -> None:
    scored = ListNetLoss().pairs([InputExample(texts=["q", "a", "b"], label=label)], 1, "batch")
    assert scored.targets.labels.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(("given", "expected"), [(None, None), (0, None), (-1, None), (16, 16)])
def test_mini_batch_size(given: int | None, expected: int | None) -> None:
    assert ListNetLoss(mini_batch_size=given).mini_batch_size == expected


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (1, TypeError, "label: expected a list of numbers, got int 1"),
        ("10", TypeError, "label: expected a list of numbers, got str '10'"),
        ([1, None], TypeError, r"label\[1\]: expected a number, got None"),
        ([1, math.nan], ValueError, r"label\[1\]: expected a finite number, got nan"),
        ([1, 0, 0], ValueError, "label: expected 2 numbers, one for each document, got 3"),
        ([1], ValueError, "label: expected 2 numbers, one for each document, got 1"),
    ],
)
@pytest.mark.parametrize("make", [ListNetLoss, ADRMSELoss])
def test_refuses_wrong_labels(make: type[Loss], label: Any, error: type[Exception], message: str) -> None:
    examples = [*ranking([[1, 0]]), InputExample(texts=["q", "a", "b"], label=label)]
    with pytest.raises(error, match=f"^batch 0, example 1: {message}$"):
        make().pairs(examples, 1, "batch 0")
