"""Products with packed weights and their epilogues against float64, at every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from isa import LEVELS, SIZES, every_level
from tolerance import ELEMENTARY, STEEPEST, layer_norm_bound, linear_bound

from fastce import _core
from fastce.backends.torch import ops

Matrices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def random_matrices(rows: int, inputs: int, outputs: int) -> Matrices:
    """x `[rows, inputs]`, weight `[outputs, inputs]` and bias `[outputs]`; some rows large, some zero."""
    generator = torch.Generator().manual_seed(rows + 1000 * inputs + 1000000 * outputs)
    x = torch.randn(rows, inputs, generator=generator)
    x[1::5] *= 30.0
    x[3::7] = 0.0
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return x, weight, torch.randn(outputs, generator=generator)


def run(matrices: Matrices, number_format: str, isa: str, *arguments: object) -> torch.Tensor:
    x, weight, bias = matrices
    kernel = _core.LinearKernel(weight.numpy(), bias.numpy(), number_format, isa)
    return torch.from_numpy(kernel(x.numpy(), *arguments))


def rounded(matrices: Matrices, number_format: str) -> Matrices:
    """The numbers that a format multiplies."""
    x, weight, bias = matrices
    return (x.bfloat16().float(), weight.bfloat16().float(), bias) if number_format == "bf16" else matrices


def product(matrices: Matrices) -> torch.Tensor:
    x, weight, bias = matrices
    return F.linear(x.double(), weight.double(), bias.double())


def check_product(rows: int, inputs: int, outputs: int, number_format: str, isa: str) -> None:
    matrices = random_matrices(rows, inputs, outputs)
    exact = rounded(matrices, number_format)
    error = (run(matrices, number_format, isa) - product(exact)).abs()
    assert (error <= linear_bound(*exact)).all(), f"{float((error / linear_bound(*exact)).max())} times the bound"


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_sizes(number_format: str, isa: str) -> None:
    for size in SIZES:
        check_product(size, 64, 96, number_format, isa)
        check_product(7, size, 33, number_format, isa)
        check_product(13, 20, size, number_format, isa)


@every_level
@given(st.integers(1, 80), st.integers(1, 300), st.integers(1, 300), st.sampled_from(["fp32", "bf16"]))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_shape(isa: str, rows: int, inputs: int, outputs: int, number_format: str) -> None:
    check_product(rows, inputs, outputs, number_format, isa)


@every_level
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "tanh"])
def test_activations(activation: str, isa: str) -> None:
    steps = torch.linspace(-12.0, 12.0, 40_000)
    far = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e-4, 20.0, -20.0, 100.0, -100.0, 3e4, -3e4])
    x = torch.cat([steps, far]).unflatten(0, (-1, 1))
    actual = run((x, torch.ones(1, 1), torch.zeros(1)), "fp32", isa, activation)
    expected = ops.activate(x.double(), activation)  # type: ignore[arg-type]
    assert ((actual - expected).abs() <= ELEMENTARY + ELEMENTARY * expected.abs()).all()


@every_level
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh", "relu", "tanh"])
def test_not_a_number_stays_one(activation: str, isa: str) -> None:
    x = torch.tensor([1.0, float("nan"), -1.0]).unflatten(0, (-1, 1))
    actual = run((x, torch.ones(1, 1), torch.zeros(1)), "fp32", isa, activation)
    assert actual.isnan().flatten().tolist() == [False, True, False]


@every_level
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (50, 67, 129), (13, 384, 384)])
def test_activation_of_a_product(rows: int, inputs: int, outputs: int, isa: str) -> None:
    matrices = random_matrices(rows, inputs, outputs)
    expected = F.gelu(product(matrices))
    bound = STEEPEST * linear_bound(*matrices) + ELEMENTARY * (1 + expected.abs())
    assert ((run(matrices, "fp32", isa, "gelu") - expected).abs() <= bound).all()


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize("outputs", [2, 3, 16, 31, 60, 64, 100, 384])
def test_residual_and_layer_norm(outputs: int, number_format: str, isa: str) -> None:
    matrices = random_matrices(9, 40, outputs)
    residual, weight, bias = torch.randn(9, outputs), torch.randn(outputs), torch.randn(outputs)
    eps = 1e-12
    actual = run(matrices, number_format, isa, "none", residual.numpy(), weight.numpy(), bias.numpy(), eps)
    exact = rounded(matrices, number_format)
    summed = product(exact) + residual.double()
    expected = F.layer_norm(summed, (outputs,), weight.double(), bias.double(), eps)
    bound = layer_norm_bound(summed, linear_bound(*exact), weight.double(), eps)
    assert ((actual - expected).abs() <= bound).all()


def int8_product(matrices: Matrices, isa: str) -> np.ndarray:
    """Every integer of the int8 scheme in int64, then its two roundings in float32, for a zero bias."""
    x, weight, _ = matrices
    values, scales, zero_points = _core.quantize_kernel(x.numpy(), isa)
    largest = weight.abs().amax(1, keepdim=True).numpy()
    steps = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    integers = np.rint(weight.numpy() * steps).astype(np.int64)
    sums = (values.astype(np.int64) - zero_points[:, None]) @ integers.T
    return sums.astype(np.float32) * (largest[:, 0] / np.float32(127) * scales[:, None])


@every_level
@given(st.integers(1, 60), st.integers(1, 300), st.integers(1, 200))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_int8_is_exact_and_the_same_at_every_level(isa: str, rows: int, inputs: int, outputs: int) -> None:
    x, weight, bias = random_matrices(rows, inputs, outputs)
    matrices = (x, weight, torch.zeros_like(bias))
    actual = run(matrices, "int8", isa).numpy()
    np.testing.assert_array_equal(actual, int8_product(matrices, isa))
    np.testing.assert_array_equal(actual, run(matrices, "int8", LEVELS[0]).numpy())


@every_level
def test_int8_at_the_ends_of_its_range(isa: str) -> None:
    x = torch.full((5, 4096), 3.0)
    x[:, -1] = 0.0
    weight = torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0)[:, None].expand(40, 4096).contiguous()
    matrices = (x, weight, torch.zeros(40))
    np.testing.assert_array_equal(run(matrices, "int8", isa).numpy(), int8_product(matrices, isa))


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16", "int8"])
def test_a_row_depends_on_itself_alone(number_format: str, isa: str) -> None:
    x, weight, bias = random_matrices(61, 130, 70)
    together = run((x, weight, bias), number_format, isa, "gelu")
    for row in (0, 5, 11, 12, 47, 60):
        assert torch.equal(run((x[row : row + 1], weight, bias), number_format, isa, "gelu")[0], together[row])


def test_unknown_names() -> None:
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="ISA level 'mmx': this processor has scalar"):
        _core.LinearKernel(one, one[0], "fp32", "mmx")
    with pytest.raises(ValueError, match="format 'fp8' is none of fp32, bf16, int8"):
        _core.LinearKernel(one, one[0], "fp8", LEVELS[0])
    with pytest.raises(ValueError, match="activation 'silu' has no kernel"):
        _core.LinearKernel(one, one[0], "fp32", LEVELS[0])(one, "silu")
