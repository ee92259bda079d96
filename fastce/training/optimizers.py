"""The optimizer of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

FUSED: tuple[type[torch.optim.Optimizer], ...] = (torch.optim.AdamW, torch.optim.Adam)
"""Optimizers that update all weights in one pass where they are asked to."""


def make_optimizer(
    module: nn.Module,
    optimizer_class: type[torch.optim.Optimizer],
    parameters: Mapping[str, Any],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Makes an optimizer with weight decay on everything but biases and LayerNorm; frozen parameters are left out.

    Args:
        module: Whose parameters to optimize.
        optimizer_class: The optimizer; torch's AdamW and Adam in their fused form unless `parameters` say otherwise.
        parameters: Its arguments.
        weight_decay: The decay.

    Raises:
        ValueError: All parameters are frozen.
    """
    norms = {
        id(parameter) for part in module.modules() if isinstance(part, nn.LayerNorm) for parameter in part.parameters()
    }
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (others if name.endswith("bias") or id(parameter) in norms else decayed).append(parameter)
    if not decayed and not others:
        raise ValueError("model: all of its parameters are frozen (requires_grad is False)")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    options = dict(parameters)
    if optimizer_class in FUSED and not options.keys() & {"foreach", "fused", "capturable", "differentiable"}:
        options["fused"] = True
    return optimizer_class([group for group in groups if group["params"]], **options)
