"""The top of exact scores from fast ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES

from fastce import CrossEncoder
from fastce.pipeline import BatchLimits, Window
from fastce.rescoring import Rescorer

pytest.importorskip("fastce._core", reason="int8 is the C++ engine's")
Tiny = Callable[..., str]
TEXTS = [f"{one} {other}" for one in SENTENCES for other in SENTENCES][:120]


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
@pytest.mark.parametrize("top_k", [1, 10, 200])
def test_the_top_is_that_of_the_exact_precision(tiny: Tiny, top_k: int, activation: str) -> None:
    model = CrossEncoder(tiny("bert"), activation_fn=activation)
    for query in SENTENCES[:6]:
        found = model.rank(query, TEXTS, top_k=top_k, precision="int8", rescore="fp32", return_documents=True)
        assert found == model.rank(query, TEXTS, top_k=top_k, return_documents=True)


def test_how_many_were_scored_again_is_logged(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="fastce.rescoring"):
        CrossEncoder(tiny("bert")).rank("a", TEXTS, top_k=3, precision="int8", rescore="fp32")
    pattern = (
        r"\d+ of \d+ pairs were scored again in fp32; fast logits at most [\d.]+ too low, as measured on \d+ pairs"
    )
    assert re.fullmatch(pattern, caplog.messages[0])


def test_equal_scores_are_in_the_order_of_the_documents(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"), activation_fn="relu")  # most scores are 0
    for query in SENTENCES[:4]:
        found = model.rank(query, TEXTS, top_k=60, precision="int8", rescore="fp32")
        assert found == model.rank(query, TEXTS, top_k=60)
        assert len({entry["score"] for entry in found}) < 60


class Biased:
    """A pipeline whose fast logits are wrong by as much as the numbers given say."""

    precision = "int8"

    def __init__(self, pipeline: Any, errors: np.ndarray):
        self.pipeline, self.errors = pipeline, torch.from_numpy(errors.astype(np.float32))[:, None]
        self.computed = {"int8": 0, "fp32": 0}

    def compute(self, tokenized: Any, limits: BatchLimits, advance: Any, precision: str) -> torch.Tensor:
        self.computed[precision] += len(tokenized.pairs)
        exact: torch.Tensor = self.pipeline.compute(tokenized, limits, advance, "fp32")
        return exact + self.errors if precision == "int8" else exact

    def built_encoder(self, precision: Any) -> Any:
        return self.pipeline.built_encoder(precision=precision)


def test_groups_and_the_number_of_pairs_that_are_scored_again(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    queries = [SENTENCES[number % 7] for number in range(len(TEXTS))]
    tokenized = model.pipeline.tokenized(Window(queries, TEXTS), model.max_length)
    groups = np.array([number % 7 for number in range(len(TEXTS))])
    generator = np.random.default_rng(0)
    exact = model.predict(list(zip(queries, TEXTS, strict=True)))
    expected = [
        [number for number in np.argsort(-exact, kind="stable") if groups[number] == group][:3] for group in range(7)
    ]
    shares = []
    for size in (0.0, 0.02, 1.0):
        biased: Any = Biased(model.pipeline, 0.7 + size * generator.normal(size=len(TEXTS)))
        rescorer = Rescorer(biased, "fp32", model.activation_fn)
        rescorer.top(tokenized, groups, 3, BatchLimits())  # measures
        biased.computed["fp32"] = 0
        kept, scores, rescored = rescorer.top(tokenized, groups, 3, BatchLimits())
        assert kept.reshape(7, 3).tolist() == expected
        assert np.array_equal(scores, exact[kept])
        assert biased.computed["fp32"] == rescored
        shares.append(rescored / len(TEXTS))
        model.pipeline.built_encoder(precision="int8").errors.clear()
    assert shares[0] == pytest.approx(21 / len(TEXTS)), "a constant error asks for no second look"
    assert shares[0] < shares[1] < shares[2]


def test_what_cannot_be_rescored(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    with pytest.raises(ValueError, match="rescore: needs top_k"):
        model.rank("a", TEXTS, precision="int8", rescore="fp32")
    with pytest.raises(ValueError, match="rescore: the scores are in fp32 to begin with"):
        model.rank("a", TEXTS, top_k=3, rescore="fp32")
    with pytest.raises(ValueError, match=r"expected an activation function that keeps the order .* got GELU"):
        model.rank("a", TEXTS, top_k=3, precision="int8", rescore="fp32", activation_fn="gelu")
    assert model.rank("a", [], top_k=3, precision="int8", rescore="fp32") == []
    assert model.rank("a", TEXTS, top_k=0, precision="int8", rescore="fp32") == []


def test_weights_that_changed_are_measured_anew(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"), precision="int8")
    model.rank("a", TEXTS, top_k=3, rescore="fp32")
    errors = model.pipeline.built_encoder().errors["fp32"]
    assert errors.measured >= 64
    with torch.no_grad():
        model.model.classifier.weight.mul_(-1.0)
    assert model.rank("a", TEXTS, top_k=3, rescore="fp32") == model.rank("a", TEXTS, top_k=3, precision="fp32")
    assert model.pipeline.built_encoder().errors["fp32"] is not errors


def test_a_precision_for_one_call(tiny: Tiny) -> None:
    model, pairs = CrossEncoder(tiny("bert")), [("a", text) for text in TEXTS]
    fast = CrossEncoder(tiny("bert"), precision="int8").predict(pairs)
    assert np.array_equal(model.predict(pairs, precision="int8"), fast)
    assert not np.array_equal(model.predict(pairs), fast)
