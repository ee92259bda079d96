from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference_losses import as_columns, assert_equals_reference, gradient_is_right

from fastce import InputExample
from fastce.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss


def examples(batch_size: int, num_negatives: int = 0) -> list[InputExample]:
    return [
        InputExample(texts=[f"q{query}", *(f"q{query} d{place}" for place in range(num_negatives + 1))])
        for query in range(batch_size)
    ]


@pytest.mark.parametrize("name", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"])
@pytest.mark.parametrize(("batch_size", "num_negatives"), [(7, 0), (6, 1), (4, 3), (3, 0), (1, 2)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_negatives": None},
        {"num_negatives": 2, "scale": 3.0},
        {"activation_fn": None, "scale": 0},
        {"activation_fn": torch.nn.Tanh()},
    ],
    ids=str,
)
def test_same_as_sentence_transformers(name: str, batch_size: int, num_negatives: int, options: dict[str, Any]) -> None:
    assert_equals_reference(
        lambda losses, model: getattr(losses, name)(model, **options), examples(batch_size, num_negatives), as_columns
    )


def test_gradient() -> None:
    assert gradient_is_right(MultipleNegativesRankingLoss(), examples(4, 1))


def test_value_for_equal_scores() -> None:
    loss = MultipleNegativesRankingLoss()
    scored = loss.pairs(examples(8, 2), 1, "batch")
    candidates = 1 + 4 + 2
    assert len(scored.first) == 8 * candidates
    assert float(loss(torch.zeros(8 * candidates), scored.targets)) == pytest.approx(math.log(candidates))


def test_pairs_without_a_draw() -> None:
    scored = MultipleNegativesRankingLoss(num_negatives=None).pairs(examples(2, 1), 1, "batch")
    assert scored.first == ["q0"] * 4 + ["q1"] * 4
    assert scored.second == ["q0 d0", "q1 d0", "q1 d1", "q0 d1", "q1 d0", "q0 d0", "q0 d1", "q1 d1"]


def test_draws_documents_of_other_examples_without_replacement() -> None:
    drawn = MultipleNegativesRankingLoss(num_negatives=5).draw(4, 3)
    for anchor, indices in enumerate(drawn):
        assert len(set(indices)) == 5
        assert all(index % 4 != anchor for index in indices)


def test_the_seed_fixes_the_draw() -> None:
    loss = MultipleNegativesRankingLoss()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(loss.pairs(examples(12), 1, "batch").second)
    assert draws[0] == draws[1] != draws[2]


def test_an_example_alone_teaches_nothing() -> None:
    loss = MultipleNegativesRankingLoss()
    scored = loss.pairs(examples(1), 1, "batch")
    assert (scored.first, scored.second) == (["q0"], ["q0 d0"])
    assert float(loss(torch.ones(1), scored.targets)) == 0.0


def test_ignores_labels() -> None:
    labelled = InputExample(texts=["q0", "q0 d0"], label="anything")  # type: ignore[arg-type]
    assert MultipleNegativesRankingLoss().pairs([labelled], 1, "batch").first == ["q0"]


def test_refuses_different_numbers_of_texts() -> None:
    message = r"^batch 0, example 2: texts: expected 2 texts, as in example 0, got 3$"
    with pytest.raises(ValueError, match=message):
        MultipleNegativesRankingLoss().pairs([*examples(2), *examples(1, 1)], 1, "batch 0")


def test_mini_batch_size() -> None:
    assert MultipleNegativesRankingLoss().mini_batch_size is None
    assert CachedMultipleNegativesRankingLoss().mini_batch_size == 32
    assert CachedMultipleNegativesRankingLoss(mini_batch_size=8).mini_batch_size == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_negatives": 0}, ValueError, "num_negatives: expected a positive whole number, got 0"),
        ({"num_negatives": 1.5}, TypeError, "num_negatives: expected a positive whole number, got float 1.5"),
        ({"mini_batch_size": 0}, ValueError, "mini_batch_size: expected a positive whole number, got 0"),
    ],
)
def test_refuses_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        CachedMultipleNegativesRankingLoss(**options)
