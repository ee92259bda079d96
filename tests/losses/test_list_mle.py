from __future__ import annotations

import math

import pytest
import torch
from ranking_cases import CHANGES, LABELS
from reference_losses import Make, as_lists, assert_equals_reference, gradient_is_right, ranking
from torch import Tensor, nn

from fastce.losses import ListMLELoss, Loss, PListMLELambdaWeight, PListMLELoss


def reciprocal(mask: Tensor) -> Tensor:
    return (1.0 / mask.cumsum(dim=1).clamp(min=1)) * mask


MAKERS: dict[str, Make] = {
    "ListMLE": lambda losses, model: losses.ListMLELoss(model),
    "ListMLE, sorted": lambda losses, model: losses.ListMLELoss(model, respect_input_order=False),
    "ListMLE, sigmoid": lambda losses, model: losses.ListMLELoss(model, nn.Sigmoid()),
    "p-ListMLE": lambda losses, model: losses.PListMLELoss(model),
    "p-ListMLE, sorted": lambda losses, model: losses.PListMLELoss(model, respect_input_order=False),
    "p-ListMLE, no weight": lambda losses, model: losses.PListMLELoss(model, lambda_weight=None),
    "p-ListMLE, own weight": lambda losses, model: losses.PListMLELoss(
        model, losses.PListMLELambdaWeight(reciprocal), nn.Sigmoid(), respect_input_order=False
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("maker", MAKERS)
def test_same_as_sentence_transformers(maker: str, labels: str, change: str) -> None:
    assert_equals_reference(MAKERS[maker], ranking(LABELS[labels]), as_lists, change=CHANGES[change])


@pytest.mark.parametrize("lengths", [[1, 2, 5], [127, 3], [128, 127, 1], [300, 4]], ids=str)
def test_weights_are_those_of_sentence_transformers(lengths: list[int]) -> None:
    reference = pytest.importorskip("sentence_transformers.cross_encoder.losses").PListMLELambdaWeight()
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    weights = PListMLELambdaWeight()(mask)
    assert torch.equal(weights, reference(mask))
    assert weights.sum(dim=1).isfinite().all()


@pytest.mark.parametrize("loss", [ListMLELoss(), PListMLELoss(), PListMLELoss(respect_input_order=False)])
@pytest.mark.parametrize("labels", LABELS)
def test_gradient(loss: Loss, labels: str) -> None:
    assert gradient_is_right(loss, ranking(LABELS[labels]))


def test_values() -> None:
    scored = ListMLELoss().pairs(ranking([[2, 1, 0]]), 1, "batch")
    logits = torch.tensor([2.0, 1.0, 0.0])
    first = math.log(1 + math.exp(-1) + math.exp(-2))
    second = math.log(1 + math.exp(-1))
    assert float(ListMLELoss()(logits, scored.targets)) == pytest.approx(first + second)
    assert float(PListMLELoss()(logits, scored.targets)) == pytest.approx((3 * first + second) / 4)


def test_sorts_by_labels_on_demand() -> None:
    logits = torch.tensor([0.5, 3.0, -1.0])
    for make in (ListMLELoss, PListMLELoss):
        shuffled = make().pairs(ranking([[1, 0, 2]]), 1, "batch")
        best_first = make().pairs(ranking([[2, 1, 0]]), 1, "batch")
        expected = make()(logits[[2, 0, 1]], best_first.targets)
        assert make(respect_input_order=False)(logits, shuffled.targets) == expected
        assert make()(logits, shuffled.targets) != expected


def test_a_query_with_a_single_document_teaches_nothing() -> None:
    scored = PListMLELoss().pairs(ranking([[1]]), 1, "batch")
    logits = torch.tensor([4.0], requires_grad=True)
    loss = PListMLELoss()(logits, scored.targets)
    loss.backward()
    assert (float(loss.detach()), logits.grad) == (0.0, torch.zeros(1))
