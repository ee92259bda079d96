"""What `CrossEncoder.fit` is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch


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
            if given[name] is not None and not isinstance(given[name], bool):
                given[name] = Path(given[name])
        if given["optimizer_params"] is None:
            given["optimizer_params"] = {"lr": 2e-5}
        return cls(**given)
