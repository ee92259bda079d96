"""The flow of sentence-transformers' three classic training scripts, with nothing changed but the imports."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import PAIRS
from torch.utils.data import DataLoader

from fastce import CrossEncoder, InputExample
from fastce.evaluation import CEBinaryClassificationEvaluator, CECorrelationEvaluator, CESoftmaxAccuracyEvaluator

Tiny = Callable[..., str]


@pytest.fixture
def train_samples() -> list[InputExample]:
    return [InputExample(texts=list(pair), label=float(number % 5) / 4) for number, pair in enumerate(PAIRS[:32])]


def test_sts(tiny: Tiny, tmp_path: Path, train_samples: list[InputExample], caplog: pytest.LogCaptureFixture) -> None:
    train_batch_size, num_epochs, model_save_path = 16, 2, str(tmp_path / "sts")
    model = CrossEncoder(tiny("roberta"), num_labels=1)
    train_dataloader = DataLoader(train_samples, shuffle=True, batch_size=train_batch_size)
    evaluator = CECorrelationEvaluator.from_input_examples(train_samples, name="sts-dev")
    warmup_steps = math.ceil(len(train_dataloader) * num_epochs * 0.1)
    with caplog.at_level(logging.INFO):
        model.fit(
            train_dataloader=train_dataloader,
            evaluator=evaluator,
            epochs=num_epochs,
            warmup_steps=warmup_steps,
            output_path=model_save_path,
        )
    model = CrossEncoder(model_save_path)
    evaluator = CECorrelationEvaluator.from_input_examples(train_samples, name="sts-test")
    assert -1 <= evaluator(model) <= 1
    lines = (tmp_path / "sts" / "CECorrelationEvaluator_sts-dev_results.csv").read_text().splitlines()
    assert lines[0] == "epoch,steps,Pearson_Correlation,Spearman_Correlation"
    assert [line.split(",")[:2] for line in lines[1:]] == [["0", "-1"], ["1", "-1"]]
    assert "Spearman" in caplog.text


def test_quora(tiny: Tiny, tmp_path: Path, train_samples: list[InputExample]) -> None:
    for sample in train_samples:
        sample.label = int(sample.label > 0.5)
    model = CrossEncoder(tiny("distilbert"), num_labels=1)
    train_dataloader = DataLoader(train_samples, shuffle=True, batch_size=8)
    evaluator = CEBinaryClassificationEvaluator.from_input_examples(train_samples, name="Quora-dev")
    model.fit(
        train_dataloader=train_dataloader,
        evaluator=evaluator,
        epochs=1,
        evaluation_steps=2,
        warmup_steps=1,
        output_path=str(tmp_path),
    )
    lines = (tmp_path / "CEBinaryClassificationEvaluator_Quora-dev_results.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["0", "2"], ["0", "4"], ["0", "-1"]]


def test_nli(tiny: Tiny, tmp_path: Path) -> None:
    samples = [InputExample(texts=list(pair), label=number % 3) for number, pair in enumerate(PAIRS[:32])]
    model = CrossEncoder(tiny("bert", num_labels=3), num_labels=3)
    evaluator = CESoftmaxAccuracyEvaluator.from_input_examples(samples, name="AllNLI-dev")
    model.fit(
        train_dataloader=DataLoader(samples, shuffle=True, batch_size=8),
        evaluator=evaluator,
        epochs=1,
        evaluation_steps=10000,
        warmup_steps=1,
        output_path=str(tmp_path),
    )
    assert 0 <= evaluator(CrossEncoder(str(tmp_path))) <= 1
