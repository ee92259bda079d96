"""(4) Logits to scores: activation functions, softmax, output types."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fastce.checks import check_function, describe

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

PLAIN: dict[type, str] = {type(make()): repr(make()) for make in ACTIVATION_FUNCTIONS.values()}
"""The same classes to how they show themselves without arguments of a caller's."""

VECTOR = 64
"""A multiple of the numbers that PyTorch computes at once; arrays of up to its square it leaves to one thread."""


def activation_from_name(path: str) -> ActivationFn:
    """Resolves an activation function named in a config.

    Args:
        path: A class of `torch.nn`, such as `"torch.nn.modules.activation.Sigmoid"` or `"torch.nn.Sigmoid"`.

    Raises:
        ValueError: The class is not one of `ACTIVATION_FUNCTIONS`.
    """
    package, _, name = str(path).rpartition(".")
    if name not in ACTIVATION_FUNCTIONS or not (package == "torch.nn" or package.startswith("torch.nn.modules.")):
        raise ValueError(
            f"the model's config names the activation function {path!r}, which is not one of "
            f"{', '.join(f'torch.nn.{known}' for known in ACTIVATION_FUNCTIONS)}; pass activation_fn"
        )
    return ACTIVATION_FUNCTIONS[name]()


def check_activation(value: Any, place: str = "activation_fn") -> ActivationFn:
    """An activation function that a caller gave, itself or as one of `ACTIVATION_FUNCTIONS` by its name in any case.

    Raises:
        TypeError: It is no function.
        ValueError: There is none of that name.
    """
    if isinstance(value, str):
        known = {name.lower(): make for name, make in ACTIVATION_FUNCTIONS.items()}
        name = value.rpartition(".")[2].replace("_", "").lower()  # sigmoid, log_softmax, torch.nn.Sigmoid
        if name not in known:
            raise ValueError(f"{place}: expected a function or one of {', '.join(ACTIVATION_FUNCTIONS)}, got {value!r}")
        return known[name]()
    check_function(value, place)
    if value is None:
        raise TypeError(f"{place}: expected a function, got None")
    return cast(ActivationFn, value)


def default_activation(stored: str | None, num_labels: int) -> ActivationFn:
    """The activation function that a model's config names, else sigmoid for one label and identity for several."""
    if stored is not None:
        return activation_from_name(stored)
    return nn.Sigmoid() if num_labels == 1 else nn.Identity()


def activation_name(activation_fn: ActivationFn) -> str | None:
    """The path under which an activation function is written to a config; None, with a warning, where it can't be."""
    if not is_plain(activation_fn):
        warnings.warn(
            f"the activation function {activation_fn!r} is no plain torch.nn class and is not saved; pass "
            "activation_fn when the model is loaded",
            stacklevel=3,
        )
        return None
    kind = type(activation_fn)
    return f"{kind.__module__}.{kind.__name__}"


def is_plain(activation_fn: ActivationFn) -> bool:
    """Whether an activation function is one of `ACTIVATION_FUNCTIONS`, without arguments of its own."""
    return type(activation_fn) in PLAIN and repr(activation_fn) == PLAIN[type(activation_fn)]


def scores_from_logits(logits: torch.Tensor, activation_fn: ActivationFn, apply_softmax: bool) -> torch.Tensor:
    """Turns logits into scores, in the order of sentence-transformers: activation, squeeze, softmax.

    On the CPU, equal logits have equal scores, bit for bit, whatever is beside them; see `apply_by_row`.

    Args:
        logits: float32 `[num_pairs, num_labels]`.
        activation_fn: Applied to the logits as they are.
        apply_softmax: Whether several labels' scores shall sum to 1.

    Returns:
        `[num_pairs]` for one label, else `[num_pairs, num_labels]`; `[0]` for no pairs.

    Raises:
        TypeError: The activation function gives something else than a tensor.
        ValueError: It does not give a score, or a row of them, for each pair.
    """
    if len(logits) == 0:
        return logits.new_empty(0)
    scores = apply_by_row(activation_fn, logits)
    if logits.shape[1] == 1 and scores.ndim > 1:
        scores = scores.squeeze(-1)
    if apply_softmax and scores.ndim > 1:
        scores = apply_by_row(ACTIVATION_FUNCTIONS["Softmax"](), scores)
    return scores


def apply_by_row(function: ActivationFn, rows: torch.Tensor) -> torch.Tensor:
    """Applies a function so that a row's result depends on the row alone, bit for bit, on the CPU.

    PyTorch computes whole vectors of an array in one way and what is left over in another, so a value's last bit
    depends on its place. The plain functions therefore see blocks of one size, which leave nothing over, and others see
    a row at a time. A function that gives other results then, since it compares the rows with each other, sees all of
    them at once.

    Args:
        function: An activation function.
        rows: `[num_rows, width]`, at least one row.

    Returns:
        What the function makes of the rows, `[num_rows]` or `[num_rows, width]`.

    Raises:
        TypeError: The function gives something else than a tensor.
        ValueError: It does not give a value, or a row of them, for each row.
    """
    if is_plain(function):
        block = VECTOR * (VECTOR // rows.shape[1]) or 1
        padded = nn.functional.pad(rows, (0, 0, 0, -len(rows) % block))
        return torch.cat([function(part) for part in padded.split(block)])[: len(rows)]
    together = checked(function(rows.clone()), len(rows))  # it may compute in place
    if len(rows) == 1 or rows.device.type != "cpu":
        return together
    try:
        alone = torch.cat([checked(function(row), 1) for row in rows.clone().split(1)])
    except Exception:  # it has a use for many rows only
        return together
    if alone.shape != together.shape or not torch.allclose(
        alone.double(), together.double(), rtol=1e-3, atol=1e-6, equal_nan=True
    ):
        return together
    return alone


def checked(scores: Any, number: int) -> torch.Tensor:
    """What an activation function gave, if it has so many rows; of a single one, `squeeze` may have left the inside."""
    if not isinstance(scores, torch.Tensor):
        raise TypeError(f"activation_fn: expected it to give a tensor, got {describe(scores)}")
    if number == 1 and (scores.ndim == 0 or (scores.ndim == 1 and len(scores) > 1)):
        return scores[None]
    if scores.ndim not in (1, 2) or len(scores) != number:
        raise ValueError(
            f"activation_fn: expected it to give {number} rows, got a tensor of shape {list(scores.shape)}"
        )
    return scores


def convert(scores: torch.Tensor, *, convert_to_numpy: bool, convert_to_tensor: bool, single: bool) -> Scores:
    """Gives scores the type that was asked for; a tensor wins over an array, and neither gives a list of tensors."""
    if convert_to_tensor:
        return scores[0] if single else scores
    if convert_to_numpy:
        array = scores.cpu().numpy()
        return array[0] if single else array
    return scores[0] if single else list(scores)
