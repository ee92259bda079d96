"""What is checked before a training run starts, so that nothing is found out after hours."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from fastce.checks import check_function, check_number, check_positive, describe
from fastce.evaluation.evaluator import Evaluator, check_binary
from fastce.training.options import FitOptions

THEIRS_OF_ONE_LABEL = {"CrossEncoderCorrelationEvaluator", "CrossEncoderRerankingEvaluator"}
"""Evaluators of sentence-transformers, and their older names' base classes, that fail with several labels."""

THEIR_CLASSIFICATION = "CrossEncoderClassificationEvaluator"
"""The one that fails with one label where its own are those of several classes."""


def check_options(options: FitOptions) -> None:
    """Checks what can be checked without the model.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: It is out of range.
        OSError: A folder can't be written.
    """
    for name in ("epochs", "gradient_accumulation_steps", "checkpoint_save_steps"):
        check_positive(getattr(options, name), name)
    for name in ("evaluation_steps", "logging_steps", "checkpoint_save_total_limit"):
        check_not_negative(getattr(options, name), name, whole=True)
    for name in ("warmup_steps", "max_grad_norm", "weight_decay"):
        check_not_negative(getattr(options, name), name)
    if 0 < options.warmup_steps < 1:
        raise ValueError(f"warmup_steps: expected a number of steps, got {options.warmup_steps}")
    if not isinstance(options.optimizer_class, type):
        raise TypeError(f"optimizer_class: expected a class of optimizers, got {describe(options.optimizer_class)}")
    if not isinstance(options.optimizer_params, Mapping):
        raise TypeError(f"optimizer_params: expected a dictionary, got {describe(options.optimizer_params)}")
    if options.seed is not None:
        check_not_negative(options.seed, "seed", whole=True)
    for name in ("evaluator", "callback"):
        check_function(getattr(options, name), name)
    for name in ("output_path", "checkpoint_path"):
        folder = getattr(options, name)
        if folder is not None:
            check_writable(folder, name)


def check_evaluator(evaluator: Any, num_labels: int) -> None:
    """Checks that an evaluator, ours or one of sentence-transformers, can take a model's scores.

    Raises:
        ValueError: It is for models with another number of labels, or its own labels are.
    """
    library = "sentence_transformers."
    theirs = {kind.__name__ for kind in type(evaluator).__mro__ if kind.__module__.startswith(library)}
    if isinstance(evaluator, Evaluator):
        evaluator.check_model(num_labels)
    elif num_labels > 1 and theirs & THEIRS_OF_ONE_LABEL:
        raise ValueError(
            f"evaluator: {type(evaluator).__name__}: expected a model with 1 label, got one with {num_labels}"
        )
    elif num_labels == 1 and THEIR_CLASSIFICATION in theirs:
        check_binary(np.asarray(evaluator.labels))
    elif isinstance(getattr(evaluator, "evaluators", None), list | tuple):  # several in a row
        for part in evaluator.evaluators:
            check_evaluator(part, num_labels)


def check_dataloader(dataloader: Any) -> None:
    """Checks that a DataLoader has batches.

    Raises:
        TypeError: It is none, or nobody knows its number of batches.
        ValueError: It has no batches.
    """
    if not hasattr(dataloader, "__iter__"):
        raise TypeError(f"train_dataloader: expected a DataLoader, got {describe(dataloader)}")
    if isinstance(dataloader, DataLoader) and dataloader.batch_sampler is None:
        raise TypeError("train_dataloader: it gives single examples (batch_size=None), not batches")
    try:
        number_of_batches = len(dataloader)
    except TypeError as error:
        raise TypeError(
            f"train_dataloader: the schedule needs to know its number of batches, and it does not say ({error}); "
            "give its dataset a __len__"
        ) from error
    if number_of_batches == 0:
        raise ValueError("train_dataloader: it has no batches")


def check_not_negative(value: Any, name: str, *, whole: bool = False) -> None:
    """Raises TypeError or ValueError unless `value` is a number from 0 on, a whole one where that is asked for."""
    if whole and not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected a whole number, got {describe(value)}")
    if not check_number(value, name) >= 0:
        raise ValueError(f"{name}: expected 0 or more, got {value}")


def check_writable(directory: Path, name: str) -> None:
    """Makes a directory and raises OSError unless files can be written into it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(f"{name}: {directory} is no folder that can be written to ({error})") from error


def shape_of(module: torch.nn.Module) -> str:
    """Tells one model from another whose weights have other shapes."""
    parameters = list(module.parameters())
    trained = sum(parameter.requires_grad for parameter in parameters)
    return f"{trained} trained of {len(parameters)} parameters, {sum(p.numel() for p in parameters)} numbers"
