"""Evaluation within `fit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PAIRS
from training_runs import loader

from fastce import CrossEncoder

Tiny = Callable[..., str]


class Evaluator:
    """Returns prepared scores and remembers how it was called."""

    def __init__(self, *scores: float):
        self.scores = iter(scores)
        self.calls: list[tuple[str | None, int, int]] = []
        self.first_scores: list[float] = []

    def __call__(self, model: CrossEncoder, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> float:
        assert not model.model.training
        self.calls.append((output_path, epoch, steps))
        self.first_scores.append(float(model.predict(PAIRS[0])))
        return next(self.scores)


def test_evaluates_within_and_after_epochs_and_keeps_the_best(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    evaluator = Evaluator(0.1, 0.5, 0.4, 0.5)
    called: list[tuple[float, int, int]] = []
    model.fit(
        loader(32, 8),
        evaluator,
        epochs=2,
        warmup_steps=0,
        optimizer_params={"lr": 1e-2},
        evaluation_steps=3,
        output_path=str(tmp_path),
        callback=lambda *arguments: called.append(arguments),
        show_progress_bar=False,
    )
    assert evaluator.calls == [(str(tmp_path), epoch, steps) for epoch, steps in ((0, 3), (0, -1), (1, 3), (1, -1))]
    assert called == [(0.1, 0, 3), (0.5, 0, -1), (0.4, 1, 3), (0.5, 1, -1)]
    assert len(set(evaluator.first_scores)) == 4, "predict must see the weights as they are at each evaluation"
    assert float(CrossEncoder(tmp_path).predict(PAIRS[0])) == pytest.approx(evaluator.first_scores[1], abs=1e-6)


@pytest.mark.parametrize(("evaluator", "save_best"), [(None, True), (Evaluator(1.0, 0.5), False)])
def test_saves_at_the_end_where_no_best_is_kept(
    tiny: Tiny, tmp_path: Path, evaluator: Evaluator | None, save_best: bool
) -> None:
    model = CrossEncoder(tiny("bert"))
    model.fit(
        loader(16, 8),
        evaluator,
        epochs=2,
        optimizer_params={"lr": 1e-2},
        warmup_steps=0,
        output_path=tmp_path / "out",
        save_best_model=save_best,
        show_progress_bar=False,
    )
    assert np.abs(CrossEncoder(tmp_path / "out").predict(PAIRS) - model.predict(PAIRS)).max() < 1e-6


def test_nothing_is_saved_without_an_output_path(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CrossEncoder(tiny("bert")).fit(loader(8, 8), Evaluator(0.5), show_progress_bar=False)
    assert list(tmp_path.iterdir()) == []


def test_a_callback_may_leave_the_module_in_evaluation(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    modes: list[bool] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        modes.append(model.model.training)
        return logits.mean()

    model.fit(
        loader(24, 8),
        Evaluator(0.1, 0.2, 0.3, 0.4),
        loss_fct=loss,
        callback=lambda *_: model.model.eval(),
        evaluation_steps=1,
    )
    assert modes == [True] * 3


def test_evaluators_of_sentence_transformers_may_evaluate(tiny: Tiny, tmp_path: Path) -> None:
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")
    evaluator = evaluation.CrossEncoderCorrelationEvaluator(
        PAIRS[:20], [n / 20 for n in range(20)], show_progress_bar=False
    )
    scores: list[float] = []
    model = CrossEncoder(tiny("bert"))
    model.fit(loader(8, 8), evaluator, output_path=tmp_path, callback=lambda score, *_: scores.append(score))
    assert len(scores) == 1
    assert (tmp_path / "model.safetensors").exists()


def test_an_evaluation_that_is_no_number_does_not_lose_the_model(tiny: Tiny, tmp_path: Path) -> None:
    CrossEncoder(tiny("bert")).fit(loader(8, 8), Evaluator(float("nan")), output_path=tmp_path, show_progress_bar=False)
    assert (tmp_path / "model.safetensors").exists()


def test_an_evaluator_that_returns_a_dictionary_names_its_main_result(tiny: Tiny) -> None:
    class Measured:
        primary_metric = "spearman"

        def __call__(self, *_: Any, **__: Any) -> dict[str, float]:
            return {"pearson": 0.1, "spearman": 0.7}

    scores: list[float] = []
    model = CrossEncoder(tiny("bert"))
    model.fit(
        loader(8, 8),
        Measured(),
        callback=lambda score, *_: scores.append(score),
        show_progress_bar=False,
    )
    assert scores == [0.7]
    with pytest.raises(TypeError, match="primary_metric None is none of its results: spearman"):
        model.fit(loader(8, 8), lambda *_, **__: {"spearman": 1.0}, show_progress_bar=False)
