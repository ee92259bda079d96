"""Bias and activation, and gates, against PyTorch in float64."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from kernel_check import check, leaf
from tolerance import STEEPEST

from fastce.backends.reference.ops import activate
from fastce.backends.triton.activation import ROW_PROGRAMS, activate_biased
from fastce.backends.triton.blocks import WIDEST_BLOCK, blocks_of_elements
from fastce.spec import Activation

ACTIVATIONS = get_args(Activation)
BLOCK = blocks_of_elements(70).rows
SHAPES = [(1, 1), (2, 3), (BLOCK - 1, 70), (BLOCK, 70), (BLOCK + 1, 70), (3, WIDEST_BLOCK + 1)]


def check_activation(
    rows: int, size: int, activation: Activation, *, gated: bool, biased: bool, dtype: torch.dtype = torch.float32
) -> None:
    names = ["x", *["bias"] * biased, *["up"] * gated, *["up bias"] * (biased and gated)]
    inputs = {
        name: leaf(2 * torch.randn(size)) if "bias" in name else leaf(2 * torch.randn(rows, size), dtype)
        for name in names
    }

    def run(*values: torch.Tensor) -> torch.Tensor:
        parts = dict(zip(names, values, strict=True))
        return activate_biased(activation, *(parts.get(name) for name in ("x", "bias", "up", "up bias")))  # type: ignore[arg-type]

    def expected(*values: torch.Tensor) -> torch.Tensor:
        parts = dict(zip(names, values, strict=True))
        y = activate(parts["x"] + parts.get("bias", 0.0), activation)
        return y * (parts["up"] + parts.get("up bias", 0.0)) if gated else y

    check(run, expected, inputs, rows, STEEPEST * 8)  # factors are within four deviations of 2


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: Activation, gated: bool) -> None:
    check_activation(5, 70, activation, gated=gated, biased=True)


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_shapes(rows: int, size: int) -> None:
    check_activation(rows, size, "silu", gated=True, biased=True)


@pytest.mark.parametrize("gated", [False, True])
def test_without_biases(gated: bool) -> None:
    check_activation(5, 70, "relu", gated=gated, biased=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    check_activation(5, 70, "gelu", gated=True, biased=True, dtype=dtype)


def test_every_block_of_rows_has_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """More blocks than programs: each then has several."""
    assert ROW_PROGRAMS > 1
    monkeypatch.setattr("fastce.backends.triton.activation.ROW_PROGRAMS", 2)
    check_activation(4 * BLOCK + 1, 70, "gelu", gated=True, biased=True)


def test_parts_of_a_wider_matrix() -> None:
    """Gate and up as the product of one matrix leaves them: side by side."""
    wide = leaf(torch.randn(3, 20))
    check(
        lambda x: activate_biased("silu", x[:, :10], None, x[:, 10:], None),
        lambda x: activate(x[:, :10], "silu") * x[:, 10:],
        {"x": wide},
        3,
        STEEPEST * 8,
    )


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # where its inverse is 0
def test_far_from_zero() -> None:
    """Nothing overflows, and what is 0 or the argument itself is so exactly."""
    x = torch.tensor([[-1e4, -200.0, 200.0, 1e4]])
    for activation in ACTIVATIONS:
        leaf_x = leaf(x)
        y = activate_biased(activation, leaf_x, None)
        y.sum().backward()
        assert torch.equal(y.detach().cpu(), activate(x, activation)), activation
        assert leaf_x.grad is not None
        assert leaf_x.grad.isfinite().all()
