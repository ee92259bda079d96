"""One optimizer step after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fastce.backends.base import TrainableEncoder
from fastce.checks import describe
from fastce.losses.base import ScoredPairs
from fastce.losses.pointwise import make_loss
from fastce.packing import pack
from fastce.tokenization import PairTokenizer
from fastce.training.model import TrainableModel
from fastce.training.options import FitOptions
from fastce.training.processes import Processes
from fastce.training.state import random_state, set_random_state


class Stepper:
    """Takes one optimizer step after another.

    Args:
        model: The model.
        tokenizer: Remembers the texts that it has seen.
        optimizer: Changes the weights.
        scheduler: Changes the learning rate.
        options: How to train.
        processes: Who shares each step.
    """

    def __init__(
        self,
        model: TrainableModel,
        tokenizer: PairTokenizer,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        options: FitOptions,
        processes: Processes,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.options = options
        self.processes = processes
        self.loss_fct = make_loss(options.loss_fct, model.num_labels, getattr(model.config, "problem_type", None))
        self.loss_is_sum = getattr(getattr(self.loss_fct, "loss_fct", None), "reduction", "mean") == "sum"
        built = model.pipeline.built_encoder(training=True)
        self.encoder = cast(TrainableEncoder, built.encoder)
        self.positions = built.positions
        self.amp_dtype = amp_dtype(model.device) if options.use_amp else None
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=self.amp_dtype == torch.float16)
        self.scaler.scale(torch.zeros((), device=model.device))  # it exists from here on, even if a step has no batch
        self.parameters = [parameter for parameter in model.model.parameters() if parameter.requires_grad]

    def step(self, batches: Sequence[Sequence[Any]], places: Sequence[str]) -> float:
        """Learns from one batch, or from several as if they were one, and returns the mean loss of an example.

        Args:
            batches: Batches of examples, of this process.
            places: What to call each of them in errors.

        Raises:
            ValueError: The loss or a gradient is not a number; the weights are as before the step.
        """
        number = self.processes.total(sum(len(examples) for examples in batches))
        mean = 0.0
        for examples, place in zip(batches, places, strict=True):
            pairs = self.loss_fct.pairs(examples, self.model.num_labels, place)
            share = 1.0 if self.loss_is_sum else len(examples) / number
            loss = self._backward(pairs, share)
            if not math.isfinite(loss):
                self.encoder.zero_gradients()
                raise ValueError(f"{place}: the loss is {loss}")
            mean += loss * share
        self.processes.sum_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        self._clip_gradients(places)
        scale = self.scaler.get_scale()
        before = self._gradient_versions()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.encoder.zero_gradients(for_good=self._gradient_versions() != before)
        if self.scaler.get_scale() >= scale:  # a lowered scale means that the step was skipped
            self.scheduler.step()
        return self.processes.total(mean)

    def _gradient_versions(self) -> list[int]:
        """Differ when an optimizer has written into the gradients: rows that did not occur may not be 0 any more."""
        return [parameter.grad._version for parameter in self.parameters if parameter.grad is not None]

    def _clip_gradients(self, places: Sequence[str]) -> None:
        """Scales the gradients down to the norm allowed; most steps need none of that, and no pass over them."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            self.encoder.zero_gradients()
            raise ValueError(f"{', '.join(places)}: the norm of the gradients is {float(norm)}")
        if float(norm) > self.options.max_grad_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.options.max_grad_norm, norm)

    def _backward(self, pairs: ScoredPairs, share: float) -> float:
        """Adds a batch's gradients, times its share of the step, and returns its loss."""
        size = self.loss_fct.mini_batch_size
        if size is not None and size < len(pairs.first):
            return self._backward_in_parts(pairs, share, size)
        with self._autocast():
            loss = checked_loss(self.loss_fct(self._logits(pairs.first, pairs.second), pairs.targets))
        value = float(loss.detach())
        if math.isfinite(value):
            self.scaler.scale(loss * share).backward()
        return value

    def _backward_in_parts(self, pairs: ScoredPairs, share: float, size: int) -> float:
        """The same, with the activations of `size` pairs in memory at a time, each computed twice.

        The loss's gradient for all logits is found without the encoder's activations, then goes through the encoder
        part by part (gradient caching, https://arxiv.org/abs/2101.06983).
        """
        parts = [slice(start, start + size) for start in range(0, len(pairs.first), size)]
        states, logits = [], []
        for part in parts:
            states.append(random_state())
            with torch.no_grad(), self._autocast():
                logits.append(self._logits(pairs.first[part], pairs.second[part]))
        together = torch.cat(logits).requires_grad_()
        with self._autocast():
            loss = checked_loss(self.loss_fct(together, pairs.targets))
        value = float(loss.detach())
        if not math.isfinite(value):
            return value
        self.scaler.scale(loss * share).backward()
        assert together.grad is not None
        after = random_state()
        for part, state in zip(parts, states, strict=True):
            set_random_state(state)  # the same dropout as before
            with self._autocast():
                part_logits = self._logits(pairs.first[part], pairs.second[part])
            part_logits.backward(together.grad[part].to(part_logits.dtype))
        set_random_state(after)
        return value

    def _logits(self, first: list[str], second: list[str]) -> torch.Tensor:
        """Texts to differentiable logits, computed in order of length: `[num_pairs]` for one label."""
        self.tokenizer.tokenizer = self.model.tokenizer  # an evaluator or a callback may have put in another
        pairs = self.tokenizer(first, second, self.model.max_length)
        order = np.argsort(-pairs.lengths, kind="stable")
        logits = self.encoder.training_logits(pack(pairs, order, self.positions))
        logits = logits[torch.from_numpy(np.argsort(order)).to(logits.device)].float()  # [num_pairs, num_labels]
        if self.options.activation_fct is not None:
            logits = self.options.activation_fct(logits)
        return logits.view(-1) if self.model.num_labels == 1 else logits

    def _autocast(self) -> AbstractContextManager[object]:
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.amp_dtype)


def checked_loss(loss: Any) -> torch.Tensor:
    """The loss, if it is one number.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        shape = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, torch.Tensor) else describe(loss)
        raise TypeError(f"loss_fct: expected a tensor with one number, got {shape}")
    return loss


def amp_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes with it, else float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
