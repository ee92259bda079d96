from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from reference_losses import ranking

import fastce.losses
from fastce import InputExample
from fastce.losses import (
    ADRMSELoss,
    CachedMultipleNegativesRankingLoss,
    LambdaLoss,
    ListMLELoss,
    ListNetLoss,
    Loss,
    MarginMSELoss,
    MultipleNegativesRankingLoss,
    PListMLELoss,
    RankNetLoss,
)

LISTWISE = [ADRMSELoss, LambdaLoss, ListMLELoss, ListNetLoss, PListMLELoss, RankNetLoss]
RANKING = [*LISTWISE, CachedMultipleNegativesRankingLoss, MarginMSELoss, MultipleNegativesRankingLoss]


def test_names_and_arguments_are_those_of_sentence_transformers() -> None:
    reference = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    for name in reference.__all__:
        ours = inspect.signature(getattr(fastce.losses, name)).parameters
        theirs = inspect.signature(getattr(reference, name)).parameters
        assert list(ours) == list(theirs), name
        for argument, parameter in theirs.items():
            if isinstance(parameter.default, int | float | str):
                assert ours[argument].default == parameter.default, (name, argument)


@pytest.mark.parametrize("make", RANKING)
def test_ranking_losses_need_one_label(make: type[Loss]) -> None:
    message = rf"^{make.__name__}: expected a model with 1 label, got one with 3$"
    with pytest.raises(ValueError, match=message):
        make().pairs(ranking([[1, 0]]), 3, "batch 0")


@pytest.mark.parametrize("make", RANKING)
@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (None, TypeError, "texts: expected a list of texts, got None"),
        ("query", TypeError, "texts: expected a list of texts, got str 'query'"),
        (["query", "document", None], TypeError, r"texts\[2\]: expected str, got None"),
        (["query"], ValueError, "texts: expected a query and at least . of its documents, got 1 in all"),
        ([], ValueError, "texts: expected a query and at least . of its documents, got 0 in all"),
    ],
)
def test_refuses_wrong_texts(make: type[Loss], texts: Any, error: type[Exception], message: str) -> None:
    examples = [InputExample(texts=["q", "a", "b"], label=[1, 0]), InputExample(texts=texts, label=[1, 0])]
    with pytest.raises(error, match=rf"^batch 0, example 1: {message}$"):
        make().pairs(examples, 1, "batch 0")


@pytest.mark.parametrize("make", [*RANKING, fastce.losses.MSELoss])
def test_refuses_other_things_than_examples(make: type[Loss]) -> None:
    with pytest.raises(TypeError, match=r"^batch 0, example 0: expected InputExample, got tuple \('q', 'a'\)$"):
        make().pairs([("q", "a")], 1, "batch 0")  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^batch 0: expected examples, got an empty batch$"):
        make().pairs([], 1, "batch 0")


@pytest.mark.parametrize("make", RANKING)
def test_computes_in_float32_from_half_precision(make: type[Loss]) -> None:
    loss = make()
    scored = loss.pairs(ranking([[3, 0, 1], [0, 2, 1]]), 1, "batch")
    logits = torch.randn(len(scored.first)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, scored.targets)
    assert value.dtype == torch.float
    assert value == loss(logits.float(), scored.targets)


@pytest.mark.parametrize("make", [*RANKING, fastce.losses.BinaryCrossEntropyLoss, fastce.losses.MSELoss])
def test_moves_targets_to_the_logits(make: type[Loss]) -> None:
    if make in (fastce.losses.BinaryCrossEntropyLoss, fastce.losses.MSELoss):
        examples = [InputExample(texts=["a", "b"], label=1), InputExample(texts=["c", "d"], label=0)]
    else:
        examples = ranking([[1, 0, 2], [0, 1, 3]])
    loss = make()
    scored = loss.pairs(examples, 1, "batch")
    value = loss(torch.zeros(len(scored.first), device="meta"), scored.targets)
    assert value.device.type == "meta"
    assert value.shape == ()
