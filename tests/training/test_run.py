"""Runs that accumulate, recompute, freeze: none of it may change what is learned."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from tolerance import FLOAT16_LOSS, TRAINED_WEIGHTS
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from training_runs import FAST, NO_DROPOUT, SGD, DrawnTexts, distance, loader, one_thread, weights_after

from fastce import CrossEncoder, InputExample
from fastce.backends import base, encoder
from fastce.losses import BinaryCrossEntropyLoss
from fastce.training import stepper
from fastce.training.tracking import TRACKERS

Tiny = Callable[..., str]
__all__ = ["one_thread"]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_gradients_of_somebody_else_do_not_enter(tiny: Tiny) -> None:
    directory = tiny("bert", **NO_DROPOUT)
    expected = weights_after(directory, loader(shuffle=False), **SGD)
    model = CrossEncoder(directory)
    for parameter in model.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.fit(loader(shuffle=False), **SGD)
    assert distance(model.model.state_dict(), expected) == 0.0


def test_batches_may_come_in_a_list(tiny: Tiny) -> None:
    directory = tiny("bert", **NO_DROPOUT)
    batches = [list(loader().dataset)[start : start + 4] for start in range(0, 32, 4)]
    expected = weights_after(directory, loader(shuffle=False), **SGD)
    assert distance(weights_after(directory, batches, **SGD), expected) == 0.0


def test_accumulated_batches_are_one_batch(tiny: Tiny) -> None:
    directory = tiny("bert", **NO_DROPOUT)
    at_once = weights_after(directory, loader(batch_size=8, shuffle=False), **SGD)
    in_parts = weights_after(directory, loader(batch_size=2, shuffle=False), gradient_accumulation_steps=4, **SGD)
    assert distance(at_once, in_parts) <= TRAINED_WEIGHTS
    alone = weights_after(directory, loader(batch_size=2, shuffle=False), **SGD)
    assert distance(at_once, alone) > 10 * TRAINED_WEIGHTS


def test_accumulated_sums_are_one_sum(tiny: Tiny) -> None:
    options: dict[str, Any] = SGD | {"loss_fct": nn.BCEWithLogitsLoss(reduction="sum"), "max_grad_norm": 1e9}
    options["optimizer_params"] = {"lr": 0.01}
    directory = tiny("bert", **NO_DROPOUT)
    at_once = weights_after(directory, loader(batch_size=8, shuffle=False), **options)
    in_parts = weights_after(directory, loader(batch_size=2, shuffle=False), gradient_accumulation_steps=4, **options)
    assert distance(at_once, in_parts) <= TRAINED_WEIGHTS


def test_a_dataset_draws_the_same_whatever_the_loss_draws(tiny: Tiny) -> None:
    loss = BinaryCrossEntropyLoss()
    loss.mini_batch_size = 2  # computes parts twice, with the same random numbers
    drawn = []
    for loss_fct in (None, loss):
        data = DrawnTexts()
        CrossEncoder(tiny("bert")).fit(DataLoader(data, batch_size=8), loss_fct=loss_fct, seed=3, **FAST)
        drawn.append(data.drawn)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 16


@pytest.mark.parametrize("foreach", [False, True])
def test_an_optimizer_may_write_into_the_gradients(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, foreach: bool) -> None:
    """Nesterov's momentum with foreach does, also in rows of the tables that did not occur."""
    parameters = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "foreach": foreach}
    options: dict[str, Any] = {"optimizer_class": torch.optim.SGD, "optimizer_params": parameters, "weight_decay": 0.0}
    directory = tiny("bert", **NO_DROPOUT)
    found = weights_after(directory, loader(shuffle=False), **options)
    monkeypatch.setattr(base, "BACKENDS", {"reference": base.BACKENDS["reference"]})
    assert distance(found, weights_after(directory, loader(shuffle=False), **options)) <= TRAINED_WEIGHTS


def test_the_last_group_of_batches_may_be_smaller(tiny: Tiny) -> None:
    seen: list[int] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(len(labels))
        return logits.mean()

    CrossEncoder(tiny("bert")).fit(loader(10, 2), loss_fct=loss, gradient_accumulation_steps=3, **FAST)
    assert seen == [2] * 5


def test_recomputed_activations_change_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recomputed: list[str] = []

    def counting(layer: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        recomputed.append(arguments[0].name)
        return checkpoint(layer, *arguments, **options)

    monkeypatch.setattr(encoder, "checkpoint", counting)
    directory = tiny("bert")
    kept = weights_after(directory, loader(8), seed=1)
    assert recomputed == []
    again = weights_after(directory, loader(8), seed=1, gradient_checkpointing=True)
    assert recomputed == ["layers.0", "layers.0", "layers.1", "layers.1"] * 2
    assert distance(kept, again) == 0.0
    model = CrossEncoder(tiny("albert"))
    with pytest.raises(ValueError, match="AlbertForSequenceClassification does not support"):
        model.fit(loader(8), gradient_checkpointing=True, **FAST)


def test_parts_of_a_batch_give_its_gradient(tiny: Tiny) -> None:
    directory = tiny("bert", **NO_DROPOUT)
    loss = BinaryCrossEntropyLoss()
    loss.mini_batch_size = 3
    whole = weights_after(directory, loader(batch_size=8, shuffle=False), **SGD)
    parts = weights_after(directory, loader(batch_size=8, shuffle=False), loss_fct=loss, **SGD)
    assert distance(whole, parts) <= TRAINED_WEIGHTS


def test_parts_of_a_batch_repeat_their_dropout(tiny: Tiny) -> None:
    """A part's second pass must drop what its first one dropped, or the gradient belongs to another loss."""
    model = CrossEncoder(tiny("bert"))
    logits: list[torch.Tensor] = []
    trained: Any = model.pipeline.built_encoder(training=True).encoder
    original = trained.training_logits
    trained.training_logits = lambda batch: logits.append(original(batch)) or logits[-1]
    loss = BinaryCrossEntropyLoss()
    loss.mini_batch_size = 3
    model.fit(loader(8, 8), loss_fct=loss, **FAST)
    assert len(logits) == 6
    assert all(torch.equal(first, second) for first, second in zip(logits[:3], logits[3:], strict=True))
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("init_scale", [2.0**10, 2.0**24])
def test_float16_with_loss_scaling_follows_float32(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, init_scale: float
) -> None:
    """As on GPUs without bfloat16, but on the CPU; a scale that is too high costs steps and nothing else."""
    monkeypatch.setattr(base, "BACKENDS", {"reference": base.BACKENDS["reference"]})
    monkeypatch.setattr(stepper, "amp_dtype", lambda device: torch.float16)
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=init_scale))
    examples: Any = [InputExample(texts=["one", "two"], label=0.0), InputExample(texts=["one", "six"], label=1.0)]
    losses: dict[bool, list[float]] = {True: [], False: []}
    for use_amp, seen in losses.items():

        def recorded(logits: torch.Tensor, labels: torch.Tensor, seen: list[float] = seen) -> torch.Tensor:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
            seen.append(loss.item())
            return loss

        data: Any = DataLoader(examples, batch_size=2)  # products in float16 are slow on CPUs
        weights_after(tiny("bert", **NO_DROPOUT), data, loss_fct=recorded, epochs=20, use_amp=use_amp)
    skipped = next(step for step, loss in enumerate(losses[True]) if loss != losses[True][0]) - 1
    assert (skipped > 0) == (init_scale > 2.0**16)
    pairs = list(zip(losses[True][skipped:], losses[False], strict=False))
    assert max(abs(ours - expected) for ours, expected in pairs) <= FLOAT16_LOSS
    assert pairs[0][0] - pairs[-1][0] > 10 * FLOAT16_LOSS, "a loop that learns nothing tests nothing"


def test_frozen_parameters_stay_and_need_no_gradient(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    for name, parameter in model.model.named_parameters():
        parameter.requires_grad = "classifier" in name or "layer.1" in name
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    model.fit(loader(), **FAST)
    for name, parameter in model.model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
        assert parameter.grad is None
    for parameter in model.model.parameters():
        parameter.requires_grad = False
    with pytest.raises(ValueError, match="all of its parameters are frozen"):
        model.fit(loader(), **FAST)


def test_the_log_and_the_tracker_get_the_loss(
    tiny: Tiny, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tracker:
        values: ClassVar[list[tuple[dict[str, float], int]]] = []
        is_closed = False

        def log(self, values: dict[str, float], step: int) -> None:
            self.values.append((values, step))

        def close(self) -> None:
            Tracker.is_closed = True

    monkeypatch.setitem(TRACKERS, "mine", Tracker)
    with caplog.at_level(logging.INFO, "fastce.training"):
        CrossEncoder(tiny("bert")).fit(loader(16), logging_steps=2, report_to="mine", **FAST)
    assert [step for _, step in Tracker.values] == [2, 4]
    assert all(values.keys() == {"loss", "learning_rate"} for values, _ in Tracker.values)
    assert Tracker.is_closed
    Tracker.values.clear()
    CrossEncoder(tiny("bert")).fit(loader(16), lambda *_, **__: 0.7, epochs=13, report_to="mine", **FAST)
    assert [step for values, step in Tracker.values if "loss" in values] == [50]
    assert [step for values, step in Tracker.values if values == {"score": 0.7}] == list(range(4, 53, 4))
    assert len(re.findall(r"step \d, epoch 0: loss \d\.\d{4}, learning rate", caplog.text)) == 2
