from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from reference_losses import as_columns, assert_equals_reference, gradient_is_right
from torch import nn

from fastce import InputExample
from fastce.losses import MarginMSELoss


def example(query: int, num_negatives: int, label: Any) -> InputExample:
    texts = [f"q{query}", *(f"q{query} d{place}" for place in range(num_negatives + 1))]
    return InputExample(texts=texts, label=label)


LABELS = {
    "a margin": [example(0, 1, 0.5), example(1, 1, -2.0), example(2, 1, 3.0)],
    "a list of one margin": [example(0, 1, [0.5]), example(1, 1, [-2.0])],
    "two scores": [example(0, 1, [0.5, 3.0]), example(1, 1, [-2.0, 1.0])],
    "margins": [example(0, 3, [0.5, 3.0, 1.0]), example(1, 3, [2.0, 0.0, -1.0])],
    "scores": [example(0, 3, [4.0, 0.5, 3.0, 1.0]), example(1, 3, [1.0, 2.0, 0.0, -1.0])],
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("options", [{}, {"activation_fn": nn.Sigmoid()}, {"reduction": "sum"}], ids=str)
def test_same_as_sentence_transformers(labels: str, options: dict[str, Any]) -> None:
    assert_equals_reference(lambda losses, model: losses.MarginMSELoss(model, **options), LABELS[labels], as_columns)


def test_gradient() -> None:
    assert gradient_is_right(MarginMSELoss(), [example(0, 3, [0.5, 3.0, 1.0]), example(1, 1, 2.0)])


def test_examples_with_different_numbers_of_negatives() -> None:
    loss = MarginMSELoss()
    scored = loss.pairs([example(0, 2, np.array([5.0, 4.0, 3.0])), example(1, 1, -1)], 1, "batch")
    assert scored.first == ["q0"] * 3 + ["q1"] * 2
    assert scored.second == ["q0 d0", "q0 d1", "q0 d2", "q1 d0", "q1 d1"]
    logits = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0])
    # margins 1, -1 and 0.5, where 1, 2 and -1 are wanted
    assert float(loss(logits, scored.targets)) == pytest.approx((0 + 9 + 2.25) / 3)


@pytest.mark.parametrize(
    ("num_negatives", "label", "error", "message"),
    [
        (1, None, TypeError, "expected a number, got None"),
        (1, "high", TypeError, "expected a list of numbers, got str 'high'"),
        (1, math.nan, ValueError, "expected a finite number, got nan"),
        (2, 1.0, ValueError, "expected 2 margins or 3 scores, got float 1.0"),
        (2, [1.0], ValueError, r"expected 2 margins or 3 scores, got list \[1.0\]"),
        (1, [1, 2, 3], ValueError, r"expected 1 margins or 2 scores, got list \[1, 2, 3\]"),
    ],
)
def test_refuses_wrong_labels(num_negatives: int, label: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^batch 0, example 1: label: {message}$"):
        MarginMSELoss().pairs([example(0, 1, 1.0), example(1, num_negatives, label)], 1, "batch 0")


def test_names_the_wrong_number_in_a_list() -> None:
    with pytest.raises(ValueError, match=r"^batch 0, example 0: label\[1\]: expected a finite number, got inf$"):
        MarginMSELoss().pairs([example(0, 2, [1.0, math.inf])], 1, "batch 0")


def test_needs_a_negative() -> None:
    message = r"^batch 0, example 0: texts: expected a query and at least 2 of its documents, got 2 in all$"
    with pytest.raises(ValueError, match=message):
        MarginMSELoss().pairs([example(0, 0, 1.0)], 1, "batch 0")
