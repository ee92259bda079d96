"""Comparison of Triton kernels with the reference ops in float64, in the interpreter or on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import device_of
from tolerance import BFLOAT16, FLOAT16, half_precision_bound, training_bound

pytest.importorskip("triton.language", reason="Triton is not installed")

from fastce.backends.triton.dropout import Dropout

DEVICE = device_of("triton")
ROUNDING = {torch.float16: FLOAT16, torch.bfloat16: BFLOAT16}
SEED = 0x123456789ABCDEF

Result = torch.Tensor | tuple[torch.Tensor, ...]


def leaf(values: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return values.to(DEVICE, dtype).requires_grad_()


def check(
    run: Callable[..., Result],
    expected_run: Callable[..., Result],
    inputs: dict[str, torch.Tensor],
    terms: int,
    amplification: float = 1.0,
    half_amplification: float = 1.0,
    half_result_amplification: float = 1.0,
) -> None:
    """Compares results and the gradients of all inputs, for a random gradient of each result.

    The last arguments are by how much gradients, and results, amplify what is rounded to half precision before them.
    """
    exact = [x.detach().double().cpu().requires_grad_() for x in inputs.values()]
    actual, expected = (x if isinstance(x, tuple) else (x,) for x in (run(*inputs.values()), expected_run(*exact)))
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(y.shape, generator=generator).to(x.dtype) for x, y in zip(actual, expected, strict=True)]
    torch.autograd.backward(actual, [gradient.to(DEVICE) for gradient in gradients])
    torch.autograd.backward(expected, [gradient.double() for gradient in gradients])
    found = {f"result {number}": pair for number, pair in enumerate(zip(actual, expected, strict=True))}
    found |= {f"gradient of {name}": (x.grad, y.grad) for (name, x), y in zip(inputs.items(), exact, strict=True)}
    for name, (value, right) in found.items():
        assert value is not None, name
        assert right is not None, name
        assert value.shape == right.shape, name
        bound = training_bound(right.detach(), terms, amplification)
        if value.dtype in ROUNDING:
            amplified = half_amplification if name.startswith("gradient") else half_result_amplification
            bound += half_precision_bound(right.detach(), ROUNDING[value.dtype], amplified)
        excess = float(((value.detach().double().cpu() - right.detach()).abs() / bound).max()) if right.numel() else 0.0
        assert excess <= 1.0, f"{name}: {excess:.2f} times the error allowed"


def factors(dropout: Dropout, rows: int, columns: int, heads: int = 1) -> torch.Tensor:
    """What dropout multiplies elements with, float64 `[rows, heads, columns]`: Philox4x32 once more, in NumPy."""
    column, row, head = np.meshgrid(np.arange(columns), np.arange(rows), np.arange(heads), indexing="ij")
    word = philox((column, row, head, np.zeros_like(row)), dropout.seed, 7)[0].transpose(1, 2, 0)
    dropped = (word >> 8) / 2.0**24 < np.float32(dropout.probability)
    return torch.from_numpy(np.where(dropped, 0.0, 1.0 / (1.0 - dropout.probability)))


def philox(counters: tuple[np.ndarray, ...], key: int, rounds: int) -> tuple[np.ndarray, ...]:
    """Philox4x32 (https://doi.org/10.1145/2063384.2063405, section 3.3)."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(counter).astype(np.uint64) for counter in counters)
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    for _ in range(rounds):
        first, second = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (second >> np.uint64(32)) ^ c1 ^ k0,
            second & low,
            (first >> np.uint64(32)) ^ c3 ^ k1,
            first & low,
        )
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3
