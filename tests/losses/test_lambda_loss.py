from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ranking_cases import CHANGES, LABELS
from reference_losses import Make, as_lists, assert_equals_reference, gradient_is_right, ranking
from torch import Tensor, nn

from fastce.losses import (
    BaseWeightingScheme,
    LambdaLoss,
    LambdaRankScheme,
    NDCGLoss1Scheme,
    NDCGLoss2PPScheme,
    NDCGLoss2Scheme,
    NoWeightingScheme,
    RankNetLoss,
)
from fastce.losses.weighting import by_distance

SCHEMES = [NoWeightingScheme, NDCGLoss1Scheme, NDCGLoss2Scheme, LambdaRankScheme, NDCGLoss2PPScheme]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_as_sentence_transformers(
    scheme: type[BaseWeightingScheme], k: int | None, labels: str, change: str
) -> None:
    assert_equals_reference(
        lambda losses, model: losses.LambdaLoss(model, getattr(losses, scheme.__name__)(), k=k),
        ranking(LABELS[labels]),
        as_lists,
        change=CHANGES[change],
    )


MAKERS: dict[str, Make] = {
    "the default": lambda losses, model: losses.LambdaLoss(model),
    "no scheme": lambda losses, model: losses.LambdaLoss(model, None),
    "mu": lambda losses, model: losses.LambdaLoss(model, losses.NDCGLoss2PPScheme(mu=2.0)),
    "sigma": lambda losses, model: losses.LambdaLoss(model, sigma=0.3),
    "eps": lambda losses, model: losses.LambdaLoss(model, eps=2.5),
    "natural": lambda losses, model: losses.LambdaLoss(model, reduction_log="natural"),
    "sigmoid": lambda losses, model: losses.LambdaLoss(model, activation_fn=nn.Sigmoid()),
    "RankNet": lambda losses, model: losses.RankNetLoss(model),
    "RankNet, options": lambda losses, model: losses.RankNetLoss(model, 2, 0.5, 1e-8, "natural", nn.Tanh(), 4),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("maker", MAKERS)
def test_options_are_those_of_sentence_transformers(maker: str, labels: str) -> None:
    assert_equals_reference(MAKERS[maker], ranking(LABELS[labels]), as_lists)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradient(scheme: type[BaseWeightingScheme], k: int | None, labels: str) -> None:
    assert gradient_is_right(LambdaLoss(None, scheme(), k=k), ranking(LABELS[labels]))


def loss_of(loss: LambdaLoss, labels: list[list[float]], logits: list[float]) -> float:
    scored = loss.pairs(ranking(labels), 1, "batch")
    return float(loss(torch.tensor(logits), scored.targets))


def test_rank_net_values() -> None:
    assert loss_of(RankNetLoss(), [[1, 0]], [0.0, 0.0]) == pytest.approx(1.0)
    assert loss_of(RankNetLoss(reduction_log="natural"), [[0, 1]], [2.0, 0.0]) == pytest.approx(math.log1p(math.exp(2)))


def test_lambda_rank_value() -> None:
    # gains of 3 and 1 over a best DCG of 3 + 1 / log2(3); both places count 1 - 1 / log2(3) apart
    inverse = 1 / math.log2(3)
    expected = (1 - inverse) * 2 / (3 + inverse)
    assert loss_of(LambdaLoss(None, LambdaRankScheme()), [[1, 2]], [0.0, 0.0]) == pytest.approx(expected)


def test_falls_by_distance() -> None:
    discount = torch.log2(torch.arange(2.0, 6.0))[None]
    inverse = [1 / math.log2(rank + 1) for rank in range(1, 5)]
    weights = by_distance(discount)
    assert weights.diagonal().tolist() == [0.0] * 4
    assert weights[0, 1:].tolist() == pytest.approx([inverse[place] - inverse[place + 1] for place in range(3)])
    assert torch.equal(weights, weights.T)


def test_equal_labels_teach_nothing() -> None:
    scored = LambdaLoss().pairs(ranking([[1, 1], [0, 0, 0]]), 1, "batch")
    logits = torch.randn(5, requires_grad=True)
    loss = LambdaLoss()(logits, scored.targets)
    loss.backward()
    assert loss == 0.0
    assert torch.equal(logits.grad, torch.zeros(5))


def test_k_leaves_out_pairs_below_it() -> None:
    # the model's first is the worst: its pairs with both others count, theirs with each other does not
    scored = RankNetLoss().pairs(ranking([[0, 1, 2]]), 1, "batch")
    counted = RankNetLoss(k=1).counted_pairs(scored.targets.labels, scored.targets.mask)
    assert counted[0].tolist() == [[False] * 3, [True, False, False], [True, False, False]]


def test_a_scheme_of_ones_own() -> None:
    class TopOnly(BaseWeightingScheme):
        def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
            return (true_sorted == true_sorted.amax(dim=1, keepdim=True)).float()[:, :, None]

    assert loss_of(LambdaLoss(None, TopOnly()), [[2, 1, 0]], [0.0, 0.0, 0.0]) == pytest.approx(2 / 3)


def test_labels_whose_gains_overflow_are_refused() -> None:
    message = r"^batch 0, example 0: label\[1\]: expected at most 100, got 200$"
    with pytest.raises(ValueError, match=message):
        LambdaLoss().pairs(ranking([[1, 200]]), 1, "batch 0")
    assert loss_of(LambdaLoss(), [[100.0, 99.0]], [0.0, 0.0]) > 0
    assert loss_of(RankNetLoss(), [[1, 200]], [0.0, 0.0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k: expected a positive whole number, got 0"),
        ({"reduction_log": "decimal"}, ValueError, "reduction_log: expected one of natural, binary, got str 'decimal'"),
        ({"weighting_scheme": 5}, TypeError, "weighting_scheme: expected a scheme of fastce.losses, got int 5"),
    ],
)
def test_refuses_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        LambdaLoss(**options)
