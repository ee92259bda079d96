"""The training loop behind `CrossEncoder.fit`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from fastce.backends.base import TrainableEncoder
from fastce.inputs import check_pair, check_positive, describe
from fastce.packing import pack
from fastce.settings import progress_bar
from fastce.training.input_example import InputExample
from fastce.training.schedulers import get_scheduler

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class FitOptions:
    """The arguments of `CrossEncoder.fit`, which documents them."""

    evaluator: Callable[..., float] | None
    epochs: int
    loss_fct: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None
    activation_fct: Callable[[torch.Tensor], torch.Tensor] | None
    scheduler: str
    warmup_steps: int
    optimizer_class: type[torch.optim.Optimizer]
    optimizer_params: Mapping[str, Any]
    weight_decay: float
    evaluation_steps: int
    output_path: Path | None
    save_best_model: bool
    max_grad_norm: float
    use_amp: bool
    callback: Callable[[float, int, int], None] | None
    show_progress_bar: bool


def fit(model: CrossEncoder, train_dataloader: Any, options: FitOptions) -> None:
    """Fine-tunes a model; see `CrossEncoder.fit`."""
    epochs = check_positive(options.epochs, "epochs")
    steps_per_epoch = len(train_dataloader)
    if steps_per_epoch == 0:
        raise ValueError("train_dataloader: it has no batches")
    if options.output_path is not None:
        check_writable(options.output_path)
    optimizer = make_optimizer(model.model, options)
    scheduler = get_scheduler(options.scheduler, optimizer, options.warmup_steps, steps_per_epoch * epochs)
    stepper = Stepper(model, optimizer, scheduler, options)
    evaluation = Evaluation(model, options)

    with (
        raw_examples(train_dataloader),
        progress_bar(
            options.show_progress_bar, total=steps_per_epoch * epochs, description="Training", unit="steps"
        ) as bar,
    ):
        for epoch in range(epochs):
            model.model.train()
            for step, examples in enumerate(train_dataloader):
                loss = stepper.step(examples, f"epoch {epoch}, batch {step}")
                bar.set_postfix(epoch=epoch + 1, loss=f"{loss:.4f}", refresh=False)
                bar.update()
                if options.evaluation_steps > 0 and (step + 1) % options.evaluation_steps == 0:
                    evaluation.run(epoch, step + 1)
                    model.model.train()
            evaluation.run(epoch, -1)
    model.model.eval()
    if options.output_path is not None and not evaluation.has_saved:
        model.save(options.output_path)


class Stepper:
    """Takes one optimizer step after another."""

    def __init__(self, model: CrossEncoder, optimizer: torch.optim.Optimizer, scheduler: Any, options: FitOptions):
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.options = options
        self.loss_fct = options.loss_fct or default_loss(model.num_labels)
        self.built = model.pipeline.built_encoder(training=True)
        device = model.device
        self.amp_dtype = amp_dtype(device) if options.use_amp else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp_dtype == torch.float16)

    def step(self, examples: Sequence[Any], place: str) -> float:
        """Learns from one batch, and returns its loss.

        Raises:
            ValueError: The loss is not a number; the weights are as before the step.
        """
        first, second, labels = unzip_examples(examples, self.model.num_labels, place)
        with self._autocast():
            logits = self.logits(first, second)  # [batch_size, num_labels]
            if self.options.activation_fct is not None:
                logits = self.options.activation_fct(logits)
            if self.model.num_labels == 1:
                logits = logits.view(-1)
            loss = self.loss_fct(logits, labels.to(self.model.device))
        value = float(loss.detach())
        if not np.isfinite(value):
            raise ValueError(f"{place}: the loss is {value}")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.model.parameters(), self.options.max_grad_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.model.pipeline.checkpoint.count_step()
        self.optimizer.zero_grad()
        if self.scaler.get_scale() >= scale:  # a lowered scale means that the step was skipped
            self.scheduler.step()
        return value

    def logits(self, first: list[str], second: list[str]) -> torch.Tensor:
        """Texts to differentiable logits, `[batch_size, num_labels]`, computed in order of length."""
        pairs = self.model.pipeline.tokenize(first, second, self.model.max_length)
        order = np.argsort(-pairs.lengths, kind="stable")
        encoder = cast(TrainableEncoder, self.built.encoder)
        logits = encoder.training_logits(pack(pairs, order, self.built.positions))
        return logits[torch.from_numpy(np.argsort(order)).to(logits.device)]

    def _autocast(self) -> AbstractContextManager[object]:
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.amp_dtype)


class Evaluation:
    """Evaluates between steps and keeps the best model."""

    def __init__(self, model: CrossEncoder, options: FitOptions):
        self.model = model
        self.options = options
        self.best_score = -float("inf")
        self.has_saved = False

    def run(self, epoch: int, steps: int) -> None:
        """Evaluates, tells the callback, saves a model that is better than all before.

        Args:
            epoch: The epoch, counted from 0.
            steps: Steps within the epoch; -1 at its end.
        """
        evaluator, output_path = self.options.evaluator, self.options.output_path
        if evaluator is None:
            return
        self.model.model.eval()
        score = evaluator(
            self.model, output_path=None if output_path is None else str(output_path), epoch=epoch, steps=steps
        )
        if not isinstance(score, float | int | np.floating):
            raise TypeError(f"evaluator: expected a number, got {describe(score)}")
        if self.options.callback is not None:
            self.options.callback(score, epoch, steps)
        if score > self.best_score:
            self.best_score = score
            if self.options.save_best_model and output_path is not None:
                self.model.save(output_path)
                self.has_saved = True


def unzip_examples(examples: Sequence[Any], num_labels: int, place: str) -> tuple[list[str], list[str], torch.Tensor]:
    """Splits a batch into first texts, second texts and labels `[batch_size]`: float32 for one label, else int64.

    Raises:
        TypeError: An example is no InputExample, or something in it has the wrong type.
        ValueError: An example has not two texts, or a class number the head does not have.
    """
    for index, example in enumerate(examples):
        if not isinstance(example, InputExample) and not hasattr(example, "texts"):
            raise TypeError(f"{place}, example {index}: expected InputExample, got {describe(example)}")
        check_pair(example.texts, f"{place}, example {index}: texts")
        check_label(example.label, num_labels, f"{place}, example {index}")
    first = [example.texts[0] for example in examples]
    second = [example.texts[1] for example in examples]
    labels = torch.tensor([example.label for example in examples], dtype=torch.float if num_labels == 1 else torch.long)
    return first, second, labels


def check_label(label: Any, num_labels: int, place: str) -> None:
    """Raises TypeError or ValueError for a label that the head can't learn."""
    if not isinstance(label, int | float | np.integer | np.floating):
        raise TypeError(f"{place}: label: expected a number, got {describe(label)}")
    if num_labels > 1 and (label != int(label) or not 0 <= label < num_labels):
        raise ValueError(f"{place}: label: expected a class from 0 to {num_labels - 1}, got {label}")


def default_loss(num_labels: int) -> nn.Module:
    """Binary cross-entropy on logits for one label, cross-entropy for several."""
    return nn.BCEWithLogitsLoss() if num_labels == 1 else nn.CrossEntropyLoss()


def make_optimizer(module: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    """The optimizer, with weight decay on everything but biases and LayerNorm."""
    norms = {
        id(parameter) for part in module.modules() if isinstance(part, nn.LayerNorm) for parameter in part.parameters()
    }
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (others if name.endswith("bias") or id(parameter) in norms else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return options.optimizer_class(groups, **options.optimizer_params)


def amp_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes with it, else float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def check_writable(directory: Path) -> None:
    """Makes a directory and raises OSError unless files can be written into it."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        pass


@contextmanager
def raw_examples(dataloader: Any) -> Iterator[None]:
    """Lets a DataLoader hand out lists of examples as they are, for a while."""
    before = getattr(dataloader, "collate_fn", None)
    dataloader.collate_fn = list
    try:
        yield
    finally:
        dataloader.collate_fn = before
