"""Comparison of the ops of training with the reference ops in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tolerance import BFLOAT16, training_bound

from fastce import _core
from fastce.backends.cpp.functions import Dropout
from fastce.spec import RotaryEmbedding

DTYPES = (torch.float32, torch.bfloat16)
SEEDS = (3, 0x123456789ABCDEF)


def leaf(values: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return values.to(dtype).requires_grad_()


def double(x: torch.Tensor) -> torch.Tensor:
    return x.detach().double().requires_grad_()


def mask(isa: str, dropout: Dropout, rows: int, columns: int) -> torch.Tensor:
    return torch.from_numpy(_core.Training(isa=isa).dropout_factors(dropout, rows, columns)).double()


Result = torch.Tensor | tuple[torch.Tensor, ...]


def check(
    run: Callable[..., Result],
    expected_run: Callable[..., Result],
    inputs: list[torch.Tensor],
    terms: int,
    amplification: float = 1.0,
) -> None:
    """Compares results and the gradients of all inputs, for a random gradient of each result."""
    exact = [double(x) for x in inputs]
    actual, expected = (x if isinstance(x, tuple) else (x,) for x in (run(*inputs), expected_run(*exact)))
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(y.shape, generator=generator).to(x.dtype) for x, y in zip(actual, expected, strict=True)]
    torch.autograd.backward(actual, gradients)
    torch.autograd.backward(expected, [gradient.double() for gradient in gradients])
    pairs = [*zip(actual, expected, strict=True), *((x.grad, y.grad) for x, y in zip(inputs, exact, strict=True))]
    for number, (found, right) in enumerate(pairs):
        assert found is not None
        assert right is not None
        rounding = BFLOAT16 if found.dtype == torch.bfloat16 else 0.0
        bound = training_bound(right, terms, amplification, rounding)
        assert ((found.double() - right).abs() <= bound).all(), f"results and gradients, number {number}"


def rotary(pairs: int, scale: float = 1.0) -> RotaryEmbedding:
    return RotaryEmbedding(tuple(10_000.0 ** (-i / pairs) for i in range(pairs)), scale)
