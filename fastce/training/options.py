"""What `CrossEncoder.fit` is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastce.checks import describe
from fastce.scoring import check_activation

REPORTED_STEPS = 50
"""Steps between two reports where nobody says."""


@dataclass(frozen=True)
class FitOptions:
    """The arguments of `CrossEncoder.fit`, which documents them."""

    evaluator: Callable[..., Any] | None
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
    checkpoint_path: Path | None
    checkpoint_save_steps: int
    checkpoint_save_total_limit: int
    resume_from_checkpoint: bool | Path
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    length_grouping: bool
    seed: int | None
    logging_steps: int
    report_to: str

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> FitOptions:
        """Takes them out of all arguments of `fit` by name, and makes paths of what names a place."""
        given = {field.name: arguments[field.name] for field in fields(cls)}
        for name in ("output_path", "checkpoint_path", "resume_from_checkpoint"):
            given[name] = given[name] if isinstance(given[name], bool | None) else path_of(given[name], name)
        if given["activation_fct"] is not None:
            given["activation_fct"] = check_activation(given["activation_fct"], "activation_fct")
        if given["optimizer_params"] is None:
            given["optimizer_params"] = {"lr": 2e-5}
        elif isinstance(given["optimizer_params"], Mapping):
            given["optimizer_params"] = {name: plain(value) for name, value in given["optimizer_params"].items()}
        if given["report_to"] != "none" and given["logging_steps"] == 0:
            given["logging_steps"] = REPORTED_STEPS
        return cls(**given)


def path_of(value: Any, name: str) -> Path:
    """A path.

    Raises:
        TypeError: It is none.
        ValueError: It is empty.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, got {describe(value)}")
    if not str(value):
        raise ValueError(f"{name}: expected a path, got an empty text")
    return Path(value)


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python, which every checkpoint can hold; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
