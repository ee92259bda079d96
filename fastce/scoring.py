"""(4) Logits to scores: activation functions, softmax, output types."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

ActivationFn = Callable[[torch.Tensor], torch.Tensor]
Scores = np.ndarray | torch.Tensor | list[torch.Tensor] | np.floating[Any]

ACTIVATION_FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "Sigmoid": nn.Sigmoid,
    "Softmax": lambda: nn.Softmax(dim=-1),
    "LogSoftmax": lambda: nn.LogSoftmax(dim=-1),
    "LogSigmoid": nn.LogSigmoid,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Softplus": nn.Softplus,
    "Hardsigmoid": nn.Hardsigmoid,
    "Hardtanh": nn.Hardtanh,
}
"""The classes of `torch.nn` that a model's config may name; nothing is ever imported by a path found in a file."""


def activation_from_name(path: str) -> ActivationFn:
    """Resolves an activation function named in a config.

    Args:
        path: A class of `torch.nn`, such as `"torch.nn.modules.activation.Sigmoid"` or `"torch.nn.Sigmoid"`.

    Raises:
        ValueError: The class is not one of `ACTIVATION_FUNCTIONS`.
    """
    package, _, name = path.rpartition(".")
    if name not in ACTIVATION_FUNCTIONS or not (package == "torch.nn" or package.startswith("torch.nn.modules.")):
        raise ValueError(
            f"the model's config names the activation function {path!r}, which is not one of "
            f"{', '.join(f'torch.nn.{known}' for known in ACTIVATION_FUNCTIONS)}; pass activation_fn"
        )
    return ACTIVATION_FUNCTIONS[name]()


def default_activation(stored: str | None, num_labels: int) -> ActivationFn:
    """The activation function that a model's config names, else sigmoid for one label and identity for several."""
    if stored is not None:
        return activation_from_name(stored)
    return nn.Sigmoid() if num_labels == 1 else nn.Identity()


def activation_name(activation_fn: ActivationFn) -> str | None:
    """The path under which an activation function is written to a config; None, with a warning, where it can't be."""
    kind = type(activation_fn)
    is_known = kind.__name__ in ACTIVATION_FUNCTIONS and kind.__module__.startswith("torch.nn.modules.")
    # What has arguments would come back without them.
    if not is_known or repr(activation_fn) != repr(ACTIVATION_FUNCTIONS[kind.__name__]()):
        warnings.warn(
            f"the activation function {activation_fn!r} is no plain torch.nn class and is not saved; pass "
            "activation_fn when the model is loaded",
            stacklevel=3,
        )
        return None
    return f"{kind.__module__}.{kind.__name__}"


def scores_from_logits(logits: torch.Tensor, activation_fn: ActivationFn, apply_softmax: bool) -> torch.Tensor:
    """Turns logits into scores, in the order of sentence-transformers: activation, squeeze, softmax.

    Args:
        logits: float32 `[num_pairs, num_labels]`.
        activation_fn: Applied to the logits as they are.
        apply_softmax: Whether several labels' scores shall sum to 1.

    Returns:
        `[num_pairs]` for one label, else `[num_pairs, num_labels]`; `[0]` for no pairs.
    """
    if len(logits) == 0:
        return logits.new_empty(0)
    scores = activation_fn(logits)
    if logits.shape[1] == 1 and scores.ndim > 1:
        scores = scores.squeeze(-1)
    if apply_softmax and scores.ndim > 1:
        scores = torch.softmax(scores, dim=1)
    return scores


def convert(scores: torch.Tensor, *, convert_to_numpy: bool, convert_to_tensor: bool, single: bool) -> Scores:
    """Gives scores the type that was asked for; a tensor wins over an array, and neither gives a list of tensors."""
    if convert_to_tensor:
        return scores[0] if single else scores
    if convert_to_numpy:
        array = scores.cpu().numpy()
        return array[0] if single else array
    return scores[0] if single else list(scores)
