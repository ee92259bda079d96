"""Runs that accumulate, recompute, regroup, stop and go on: none of it may change what is learned."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny_models import PAIRS
from tolerance import FLOAT16_LOSS, TRAINED_WEIGHTS
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from fastce import CrossEncoder, InputExample
from fastce.backends import base, encoder
from fastce.losses import BinaryCrossEntropyLoss
from fastce.training import stepper
from fastce.training.state import checkpoints
from fastce.training.tracking import TRACKERS

Tiny = Callable[..., str]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAST: dict[str, Any] = {"warmup_steps": 0, "optimizer_params": {"lr": 1e-3}, "show_progress_bar": False}
SGD: dict[str, Any] = FAST | {"optimizer_class": torch.optim.SGD, "optimizer_params": {"lr": 0.05}}


def loader(count: int = 32, batch_size: int = 4, *, shuffle: bool = True) -> DataLoader[InputExample]:
    examples = [InputExample(texts=list(pair), label=number % 5 / 4) for number, pair in enumerate(PAIRS[:count])]
    return DataLoader(examples, batch_size=batch_size, shuffle=shuffle)


def weights_after(directory: str, data: Any, **options: Any) -> dict[str, torch.Tensor]:
    model = CrossEncoder(directory)
    model.fit(data, **(FAST | options))
    return {name: weight.clone() for name, weight in model.model.state_dict().items()}


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


class StoppedError(Exception):
    """Stands in for whatever may kill a run."""


def stop_at(step: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    steps = iter(range(1, 10_000))

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if next(steps) == step:
            raise StoppedError
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    return loss


@pytest.mark.parametrize("family", ["bert", "albert"])
@pytest.mark.parametrize("length_grouping", [False, True])
@pytest.mark.parametrize("stop", [4, 9, 16])
def test_a_resumed_run_ends_as_one_that_never_stopped(
    tiny: Tiny, tmp_path: Path, family: str, length_grouping: bool, stop: int
) -> None:
    directory = tiny(family)
    options: dict[str, Any] = {"epochs": 2, "seed": 7, "length_grouping": length_grouping, "use_amp": stop == 9}
    whole = weights_after(directory, loader(), **options)
    options |= {"checkpoint_path": tmp_path, "checkpoint_save_steps": 3, "resume_from_checkpoint": True}
    with pytest.raises(StoppedError):
        weights_after(directory, loader(), loss_fct=stop_at(stop), **options)
    latest = checkpoints(tmp_path)[-1]
    assert latest.name == f"checkpoint-{(stop - 1) // 3 * 3}"
    assert distance(weights_after(directory, loader(), **options), whole) == 0.0
    assert CrossEncoder(latest).predict(PAIRS[:2]).shape == (2,)
    (latest / "training_state.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"resume_from_checkpoint: .* has no training_state.pt"):
        weights_after(directory, loader(), **(options | {"resume_from_checkpoint": latest}))


def test_a_resumed_run_knows_its_best_model(tiny: Tiny, tmp_path: Path) -> None:
    scores = iter([0.9, 0.1, 0.2])
    options: dict[str, Any] = FAST | {
        "epochs": 3,
        "output_path": tmp_path / "best",
        "checkpoint_path": tmp_path / "kept",
        "checkpoint_save_steps": 1,
        "checkpoint_save_total_limit": 2,
        "resume_from_checkpoint": True,
    }
    with pytest.raises(StoppedError):
        CrossEncoder(tiny("bert")).fit(loader(8), lambda *_, **__: next(scores), loss_fct=stop_at(4), **options)
    assert [folder.name for folder in checkpoints(tmp_path / "kept")] == ["checkpoint-2", "checkpoint-3"]
    best = CrossEncoder(tmp_path / "best").predict(PAIRS[:3])
    CrossEncoder(tiny("bert")).fit(loader(8), lambda *_, **__: next(scores), **options)
    assert (CrossEncoder(tmp_path / "best").predict(PAIRS[:3]) == best).all()


def test_a_resumed_run_has_the_order_of_the_dataloaders_own_generator(tiny: Tiny, tmp_path: Path) -> None:
    def seeded() -> DataLoader[InputExample]:
        generator = torch.Generator().manual_seed(5)
        return DataLoader(loader().dataset, batch_size=4, shuffle=True, generator=generator)

    directory = tiny("bert")
    options: dict[str, Any] = {"epochs": 2, "seed": 7}
    whole = weights_after(directory, seeded(), **options)
    options |= {"checkpoint_path": tmp_path, "checkpoint_save_steps": 5, "resume_from_checkpoint": True}
    with pytest.raises(StoppedError):
        weights_after(directory, seeded(), loss_fct=stop_at(12), **options)
    assert distance(weights_after(directory, seeded(), **options), whole) == 0.0


def test_a_checkpoint_of_another_kind_of_run_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = FAST | {"checkpoint_path": tmp_path, "checkpoint_save_steps": 4}
    CrossEncoder(tiny("bert")).fit(loader(), **options)
    with pytest.raises(ValueError, match=r"checkpoint-8 is of a run with .*'batches_per_step': 1.*, not .*: 2"):
        CrossEncoder(tiny("bert")).fit(loader(), gradient_accumulation_steps=2, resume_from_checkpoint=True, **options)


def test_a_limit_spares_the_checkpoint_just_written(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = FAST | {"checkpoint_path": tmp_path, "checkpoint_save_total_limit": 1}
    CrossEncoder(tiny("bert")).fit(loader(), checkpoint_save_steps=8, **options)
    CrossEncoder(tiny("bert")).fit(loader(16), checkpoint_save_steps=4, **options)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-8"]


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_loss_that_becomes_no_number_is_named_and_leaves_nothing_behind(tiny: Tiny, at: int) -> None:
    steps = iter(range(1, 100))

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.mean() * (float("nan") if next(steps) == at else 1.0)

    model = CrossEncoder(tiny("bert"))
    with pytest.raises(ValueError, match=f"epoch 0, batch {at - 1}: the loss is nan"):
        model.fit(loader(), loss_fct=loss, gradient_accumulation_steps=2, **FAST)
    assert not model.model.training
    assert all(parameter.grad is None for parameter in model.model.parameters())
    assert all(bool(parameter.isfinite().all()) for parameter in model.model.parameters())


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


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("max_grad_norm", None, TypeError, "max_grad_norm: expected a number, got None"),
        ("warmup_steps", -1, ValueError, "warmup_steps: expected 0 or more, got -1"),
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


def test_resuming_needs_a_place(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="resume_from_checkpoint: True needs a checkpoint_path"):
        CrossEncoder(tiny("bert")).fit(loader(), resume_from_checkpoint=True, **FAST)


def test_accumulated_batches_are_one_batch(tiny: Tiny) -> None:
    directory = tiny("bert", **NO_DROPOUT)
    at_once = weights_after(directory, loader(batch_size=8, shuffle=False), **SGD)
    in_parts = weights_after(directory, loader(batch_size=2, shuffle=False), gradient_accumulation_steps=4, **SGD)
    assert distance(at_once, in_parts) <= TRAINED_WEIGHTS
    alone = weights_after(directory, loader(batch_size=2, shuffle=False), **SGD)
    assert distance(at_once, alone) > 10 * TRAINED_WEIGHTS


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
        recomputed.append(arguments[3])
        return checkpoint(layer, *arguments, **options)

    monkeypatch.setattr(encoder, "checkpoint", counting)
    directory = tiny("bert")
    kept = weights_after(directory, loader(8), seed=1)
    assert recomputed == []
    again = weights_after(directory, loader(8), seed=1, gradient_checkpointing=True)
    assert recomputed == ["layers.0", "layers.1"] * 2
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
    monkeypatch.setattr(base, "BACKENDS", {"torch": base.BACKENDS["torch"]})
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
    assert len(re.findall(r"step \d, epoch 0: loss \d\.\d{4}, learning rate", caplog.text)) == 2


def test_an_unknown_tracker(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="report_to: expected one of none, tensorboard, wandb, got 'comet'"):
        CrossEncoder(tiny("bert")).fit(loader(), report_to="comet", **FAST)


def test_a_tracker_that_is_not_installed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("No module named 'wandb'")

    monkeypatch.setitem(TRACKERS, "wandb", missing)
    with pytest.raises(ImportError, match="report_to='wandb' needs a package: pip install wandb"):
        CrossEncoder(tiny("bert")).fit(loader(), report_to="wandb", **FAST)
