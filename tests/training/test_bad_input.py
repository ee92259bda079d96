"""What `fit` says of arguments and examples that it can't train with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.base.evaluation import SequentialEvaluator
from sentence_transformers.cross_encoder import evaluation as reference_evaluation
from tiny_models import PAIRS
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from training_runs import FAST, examples, loader

from fastce import CrossEncoder, InputExample, evaluation
from fastce.evaluation import CECorrelationEvaluator
from fastce.losses import MSELoss
from fastce.training.tracking import TRACKERS

Tiny = Callable[..., str]


@pytest.mark.parametrize(
    ("example", "num_labels", "error", "message"),
    [
        (("a", "b"), 1, TypeError, "epoch 0, batch 0, example 0: expected InputExample, got tuple"),
        (InputExample(texts=["a"]), 1, ValueError, "example 0: texts: expected 2 texts, got 1"),
        (InputExample(texts=["a", None]), 1, TypeError, r"example 0: texts\[1\]: expected str, got None"),
        (InputExample(texts=None), 1, TypeError, "example 0: texts: expected a pair of texts, got None"),
        (InputExample(texts=["a", "b"], label="yes"), 1, TypeError, "label: expected a number, got str 'yes'"),
        (InputExample(texts=["a", "b"], label=3), 3, ValueError, "label: expected a class from 0 to 2, got 3"),
        (InputExample(texts=["a", "b"], label=0.5), 3, ValueError, "label: expected a class from 0 to 2, got 0.5"),
        (InputExample(texts=["a", "b"], label=[1, 0]), 1, TypeError, r"label: expected a number, got list \[1, 0\]"),
        (InputExample(texts=["a", "b"], label=[1, 0]), 3, ValueError, r"label: expected a list of 3 numbers, got list"),
        (
            InputExample(texts=["a", "b"], label=[1, 0, 2]),
            3,
            ValueError,
            r"label: expected a number from 0 to 1, got 2",
        ),
    ],
)
def test_bad_examples_are_named(
    tiny: Tiny, example: Any, num_labels: int, error: type[Exception], message: str
) -> None:
    model = CrossEncoder(tiny("bert", num_labels=num_labels))
    with pytest.raises(error, match=message):
        model.fit(DataLoader([example], batch_size=1), show_progress_bar=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(examples(4), batch_size=None), r"it gives single examples \(batch_size=None\), not batches"),
        (examples(4), "expected batches of InputExample, got InputExample"),
        ([DataLoader(examples(4), batch_size=2)], "expected batches of InputExample, got DataLoader"),
        (None, "expected a DataLoader, got None"),
    ],
)
def test_what_gives_no_batches_is_named(tiny: Tiny, data: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"train_dataloader: {message}"):
        CrossEncoder(tiny("bert")).fit(data, show_progress_bar=False)


def test_an_empty_dataloader(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="train_dataloader: it has no batches"):
        CrossEncoder(tiny("bert")).fit(DataLoader([], batch_size=1))


def test_a_dataloader_that_does_not_know_its_length(tiny: Tiny) -> None:
    class Stream(IterableDataset[InputExample]):
        def __iter__(self) -> Any:
            return iter(examples(4))

    with pytest.raises(TypeError, match="train_dataloader: the schedule needs to know its number of batches"):
        CrossEncoder(tiny("bert")).fit(DataLoader(Stream(), batch_size=2))


def test_a_loss_that_is_no_number_stops_before_the_step(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    scores = model.predict(PAIRS[:4])
    with pytest.raises(ValueError, match="epoch 0, batch 0: the loss is nan"):
        model.fit(loader(8, 8), loss_fct=lambda logits, labels: logits.sum() * float("nan"), show_progress_bar=False)
    assert np.array_equal(model.predict(PAIRS[:4]), scores)


def test_an_output_path_that_cannot_be_written_is_found_before_training(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = CrossEncoder(tiny("bert"))
    scores = model.predict(PAIRS[:4])
    with pytest.raises(OSError, match="file"):
        model.fit(loader(8), output_path=tmp_path / "file" / "out", show_progress_bar=False)
    assert np.array_equal(model.predict(PAIRS[:4]), scores)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_loss_that_becomes_no_number_is_named_and_leaves_nothing_behind(tiny: Tiny, at: int) -> None:
    steps = iter(range(1, 100))

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.mean() * (float("nan") if next(steps) == at else 1.0)

    model = CrossEncoder(tiny("bert"))
    with pytest.raises(ValueError, match=f"step {(at + 1) // 2}, epoch 0, batch {at - 1}: the loss is nan"):
        model.fit(loader(), loss_fct=loss, gradient_accumulation_steps=2, **FAST)
    assert not model.model.training
    assert all(parameter.grad is None for parameter in model.model.parameters())
    assert all(bool(parameter.isfinite().all()) for parameter in model.model.parameters())


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("max_grad_norm", None, TypeError, "max_grad_norm: expected a number, got None"),
        ("warmup_steps", -1, ValueError, "warmup_steps: expected 0 or more, got -1"),
        ("checkpoint_save_total_limit", 2.0, TypeError, "checkpoint_save_total_limit: expected a whole number, got fl"),
        ("scheduler", None, TypeError, "scheduler: expected str, got None"),
        ("warmup_steps", 0.1, ValueError, r"warmup_steps: expected a number of steps, got 0\.1"),
        ("weight_decay", -1, ValueError, "weight_decay: expected 0 or more, got -1"),
        ("weight_decay", "x", TypeError, "weight_decay: expected a number, got str 'x'"),
        ("optimizer_class", "adamw", TypeError, "optimizer_class: expected a class of optimizers, got str 'adamw'"),
        ("optimizer_params", 1e-3, TypeError, "optimizer_params: expected a dictionary, got float"),
        ("seed", "x", TypeError, "seed: expected a whole number, got str 'x'"),
        ("evaluator", "path", TypeError, "evaluator: expected a function, got str 'path'"),
        (
            "evaluator",
            CECorrelationEvaluator,
            TypeError,
            "evaluator: expected a function, got the class CECorrelationEvaluator",
        ),
        ("activation_fct", "sigmoyd", ValueError, "activation_fct: expected a function or one of Identity, Sigmoid"),
        ("output_path", "", ValueError, "output_path: expected a path, got an empty text"),
        ("output_path", 3, TypeError, "output_path: expected a path, got int 3"),
        ("loss_fct", nn.CrossEntropyLoss(), ValueError, "loss_fct: CrossEntropyLoss needs a model with several labels"),
        ("loss_fct", MSELoss, TypeError, r"loss_fct: expected a loss, got the class; write MSELoss\(\)"),
        ("checkpoint_save_steps", 0, ValueError, "checkpoint_save_steps"),
        ("gradient_accumulation_steps", 0, ValueError, "gradient_accumulation_steps"),
        (
            "loss_fct",
            lambda logits, labels: logits,
            TypeError,
            r"a tensor with one number, got a tensor of shape \[4\]",
        ),
        ("loss_fct", lambda logits, labels: 1.0, TypeError, "a tensor with one number, got float"),
    ],
)
def test_bad_options_are_named(tiny: Tiny, option: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CrossEncoder(tiny("bert")).fit(loader(), **(FAST | {option: value}))


def test_a_loss_of_sentence_transformers_is_named(tiny: Tiny) -> None:
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    foreign = losses.BinaryCrossEntropyLoss.__new__(losses.BinaryCrossEntropyLoss)
    with pytest.raises(TypeError, match=r"needs its trainer; take fastce\.losses\.BinaryCrossEntropyLoss"):
        CrossEncoder(tiny("bert")).fit(loader(), loss_fct=foreign, **FAST)


@pytest.mark.parametrize(
    ("warmup", "scheduler", "warns"), [(8, "WarmupLinear", True), (8, "ConstantLR", False), (7, "WarmupLinear", False)]
)
def test_a_warmup_that_never_ends_is_mentioned(
    tiny: Tiny, caplog: pytest.LogCaptureFixture, warmup: int, scheduler: str, warns: bool
) -> None:
    CrossEncoder(tiny("bert")).fit(loader(), **(FAST | {"warmup_steps": warmup, "scheduler": scheduler}))
    assert ("warmup_steps is 8, but there are only 8 steps" in caplog.text) == warns


def test_labels_beyond_the_head_are_named(tiny: Tiny) -> None:
    data = loader(8, shuffle=False)
    data.dataset[5].label = 4.2
    with pytest.raises(
        ValueError, match=r"epoch 0, batch 1, example 1: label: expected a number from 0 to 1, got 4\.2"
    ):
        CrossEncoder(tiny("bert")).fit(data, **FAST)


def test_other_parameters_than_float32_are_refused(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    model.model.double()
    with pytest.raises(ValueError, match=r"needs float32 parameters, and .* is torch.float64: call model.model.float"):
        model.fit(loader(), **FAST)


def test_a_gradient_that_is_no_number_stops_before_the_step(tiny: Tiny) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    model = CrossEncoder(tiny("bert"))
    before = model.model.classifier.weight.clone()
    with pytest.raises(ValueError, match=r"epoch 0, batch 0: the norm of the gradients is (inf|nan)"):
        model.fit(loader(), loss_fct=lambda logits, labels: Broken.apply(logits).mean(), **FAST)
    assert torch.equal(model.model.classifier.weight, before)


def test_an_unknown_tracker(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="report_to: expected one of none, tensorboard, wandb, got 'comet'"):
        CrossEncoder(tiny("bert")).fit(loader(), report_to="comet", **FAST)


def test_a_tracker_that_is_not_installed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("No module named 'wandb'")

    monkeypatch.setitem(TRACKERS, "wandb", missing)
    with pytest.raises(ImportError, match="report_to='wandb' needs a package: pip install wandb"):
        CrossEncoder(tiny("bert")).fit(loader(), report_to="wandb", **FAST)


def evaluator_of(home: Any, name: str, labels: list[float]) -> Any:
    """An evaluator with so many pairs, or one of rankings."""
    data = PAIRS[1 : 1 + len(labels)] if labels else [{"query": "a", "positive": ["b"], "negative": ["c"]}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(home, name)(*((data, labels) if labels else (data,)))


@pytest.mark.parametrize("home", [evaluation, reference_evaluation])
@pytest.mark.parametrize(
    ("name", "labels", "num_labels", "message"),
    [
        ("CECorrelationEvaluator", [0.1, 0.9], 3, "with 1 label, got one with 3"),
        ("CrossEncoderCorrelationEvaluator", [0.1, 0.9], 2, "with 1 label, got one with 2"),
        ("CERerankingEvaluator", [], 3, "with 1 label, got one with 3"),
        ("CrossEncoderRerankingEvaluator", [], 3, "with 1 label, got one with 3"),
        ("CEBinaryAccuracyEvaluator", [0, 1], 3, "with 1 label, got one with 3"),
        ("CEBinaryClassificationEvaluator", [0, 1], 3, "with 1 label, got one with 3"),
        ("CESoftmaxAccuracyEvaluator", [0, 2], 1, "with several labels, got one with 1"),
        ("CEF1Evaluator", [0, 1, 2], 1, "with several labels, got one with 1"),
        ("CrossEncoderClassificationEvaluator", [0, 1, 2], 1, r"labels\[2\]: expected 0 or 1, got 2"),
    ],
)
def test_an_evaluator_that_cannot_take_the_model_is_found_before_the_first_step(
    tiny: Tiny, home: Any, name: str, labels: list[float], num_labels: int, message: str
) -> None:
    model = CrossEncoder(tiny("bert", num_labels=num_labels))
    evaluator = evaluator_of(home, name, labels)
    steps: list[object] = []

    def loss(logits: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        steps.append(logits)
        return logits.sum()

    several = SequentialEvaluator([evaluator])
    if home is reference_evaluation and name.startswith("CEBinary"):  # theirs takes models with several labels
        model.fit(loader(num_labels=num_labels), evaluator, loss_fct=loss, **FAST)
        return
    if home is reference_evaluation and num_labels == 1:
        message = "expected 0 or 1, got 2"
    for chosen in (evaluator, several):
        with pytest.raises(ValueError, match=message):
            model.fit(loader(num_labels=num_labels), chosen, loss_fct=loss, **FAST)
    assert not steps
