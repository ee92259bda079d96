"""The losses of sentence-transformers on given logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tolerance
import torch
from torch import Tensor, nn

import fastce.losses
from fastce import InputExample
from fastce.losses import Loss, ScoredPairs

Make = Callable[[Any, Any], Any]
"""Makes a loss from the module that has the losses, fastce's or sentence-transformers', and a model."""

SEED = 5


def ranking(labels: Sequence[Sequence[float]]) -> list[InputExample]:
    """A query for each list of labels, with a document for each label."""
    return [
        InputExample(texts=[f"q{query}", *(f"q{query} d{place}" for place in range(len(row)))], label=list(row))
        for query, row in enumerate(labels)
    ]


def as_lists(examples: list[InputExample]) -> tuple[list[Any], list[Tensor]]:
    """Queries, lists of documents and lists of labels."""
    texts: list[Any] = [example.texts for example in examples]
    labels = [torch.tensor(example.label, dtype=torch.float) for example in examples]
    return [[row[0] for row in texts], [row[1:] for row in texts]], labels


def as_columns(examples: list[InputExample]) -> tuple[list[Any], Any]:
    """A list of texts for each place in the examples, and the labels."""
    texts: list[Any] = [example.texts for example in examples]
    labels = [torch.tensor(example.label) for example in examples]
    columns = [list(column) for column in zip(*texts, strict=True)]
    return columns, labels if labels[0].ndim else torch.stack(labels)


def given_logits(scored: ScoredPairs, logits: Tensor, labels: int) -> Any:
    """A model of sentence-transformers that scores pairs with given logits."""
    cross_encoder = pytest.importorskip("sentence_transformers.cross_encoder")
    numbers = {pair: number for number, pair in enumerate(zip(scored.first, scored.second, strict=True))}
    assert len(numbers) == len(logits), "the reference finds a pair's logits by its texts"

    class GivenLogits(cross_encoder.CrossEncoder):  # type: ignore[misc, name-defined]
        num_labels = labels
        device = torch.device("cpu")

        def __init__(self) -> None:
            nn.Module.__init__(self)

        def preprocess(self, pairs: list[Any], **_: Any) -> dict[str, Tensor]:
            return {"numbers": torch.tensor([numbers[tuple(pair)] for pair in pairs])}

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"scores": logits[features["numbers"]].view(-1, labels)}

    return GivenLogits()


def value_and_gradient(loss: Loss, scored: ScoredPairs, logits: Tensor) -> tuple[Tensor, Tensor]:
    """A loss of fastce and its gradient."""
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, scored.targets)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def assert_equals_reference(
    make: Make,
    examples: list[InputExample],
    layout: Callable[[list[InputExample]], tuple[list[Any], Any]],
    num_labels: int = 1,
    change: Callable[[Tensor], Tensor] = lambda logits: 3 * logits,
) -> None:
    """Compares a loss and its gradient with those of sentence-transformers, for changed normal logits."""
    reference_losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    loss = make(fastce.losses, None)
    torch.manual_seed(SEED)
    scored = loss.pairs(examples, num_labels, "batch")
    shape = (len(scored.first),) if num_labels == 1 else (len(scored.first), num_labels)
    logits = change(torch.randn(shape, generator=torch.Generator().manual_seed(SEED)))
    value, gradient = value_and_gradient(loss, scored, logits)

    leaf = logits.clone().requires_grad_()
    reference = make(reference_losses, given_logits(scored, leaf, num_labels))
    torch.manual_seed(SEED)
    expected = reference(*layout(examples))
    expected.backward()
    expected_gradient = torch.zeros_like(logits) if leaf.grad is None else leaf.grad
    assert tolerance.close_to(value, expected.detach(), tolerance.LOSS)
    assert tolerance.close_to(gradient, expected_gradient, tolerance.LOSS)


def gradient_is_right(loss: Loss, examples: list[InputExample], num_labels: int = 1) -> bool:
    """Whether the gradient agrees with finite differences in float64."""
    scored = loss.pairs(examples, num_labels, "batch")
    shape = (len(scored.first),) if num_labels == 1 else (len(scored.first), num_labels)
    logits = torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(SEED))
    targets = scored.targets
    if isinstance(targets, Tensor) and targets.is_floating_point():
        targets = targets.double()  # torch's losses take the coarser of two types
    return torch.autograd.gradcheck(lambda leaf: loss(leaf, targets), logits.requires_grad_())
