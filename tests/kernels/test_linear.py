"""Products with packed weights and their epilogues against float64, at every ISA level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from isa import LEVELS, SIZES, every_level
from tolerance import ELEMENTARY, FLOAT32, STEEPEST, layer_norm_bound, linear_bound

from fastce import _core
from fastce.backends.reference.ops import activate

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
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu", "tanh"])
def test_activations(activation: str, isa: str) -> None:
    steps = torch.linspace(-12.0, 12.0, 40_000)
    far = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e-4, 20.0, -20.0, 100.0, -100.0, 3e4, -3e4])
    x = torch.cat([steps, far]).unflatten(0, (-1, 1))
    actual = run((x, torch.ones(1, 1), torch.zeros(1)), "fp32", isa, activation)
    expected = activate(x.double(), activation)
    assert ((actual - expected).abs() <= ELEMENTARY + ELEMENTARY * expected.abs()).all()


@every_level
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh", "relu", "silu", "tanh"])
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


def norm_parameters(kind: str, size: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight, and bias where the kind has one."""
    return torch.randn(size), torch.randn(size) if kind == "layer" else None


def normalized(kind: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    doubles = [None if y is None else y.double() for y in (weight, bias)]
    if kind == "rms":
        return F.rms_norm(x.double(), (len(weight),), doubles[0], eps)
    return F.layer_norm(x.double(), (len(weight),), *doubles, eps)


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["layer", "layer without a bias", "rms"])
@pytest.mark.parametrize("outputs", [2, 3, 16, 31, 60, 64, 100, 384])
def test_a_product_is_added_to_the_stream_and_normalized(outputs: int, kind: str, number_format: str, isa: str) -> None:
    x, matrix, product_bias = matrices = random_matrices(9, 40, outputs)
    stream, (weight, bias), eps = torch.randn(9, outputs), norm_parameters(kind, outputs), 1e-12
    kernel = _core.LinearKernel(matrix.numpy(), product_bias.numpy(), number_format, isa)
    exact = rounded(matrices, number_format)
    summed, error = product(exact) + stream.double(), linear_bound(*exact)
    normed = normalized(kind.split()[0], summed, weight, bias, eps)
    bound = layer_norm_bound(summed, error, weight.double(), eps)
    arguments = (
        x.numpy(),
        stream.numpy(),
        kind.split()[0],
        weight.numpy(),
        None if bias is None else bias.numpy(),
        eps,
    )
    stream_of_sums, normed_sums = map(torch.from_numpy, kernel.add(*arguments, keeps_sum=True))
    assert ((stream_of_sums - summed).abs() <= error + FLOAT32 * summed.abs()).all()
    assert ((normed_sums - normed).abs() <= bound).all()
    normed_stream, same = map(torch.from_numpy, kernel.add(*arguments, keeps_sum=False))
    assert torch.equal(normed_stream, normed_sums)
    assert torch.equal(same, normed_sums)


@every_level
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 32, 45, 100])
def test_gated(outputs: int, activation: str, number_format: str, isa: str) -> None:
    x, weight, bias = random_matrices(13, 40, outputs)
    _, gate, gate_bias = random_matrices(12, 40, outputs)
    arrays = (y.numpy() for y in (weight, bias, gate, gate_bias))
    weight_array, bias_array, gate_array, gate_bias_array = arrays
    kernel = _core.LinearKernel(weight_array, bias_array, number_format, isa, gate_array, gate_bias_array)
    actual = torch.from_numpy(kernel(x.numpy(), activation))
    left, right = (rounded((x, *y), number_format) for y in ((gate, gate_bias), (weight, bias)))
    gates, values = activate(product(left), activation), product(right)
    gate_error = STEEPEST * linear_bound(*left) + ELEMENTARY * (1 + gates.abs())
    error = linear_bound(*right)
    bound = gate_error * (values.abs() + error) + gates.abs() * error + FLOAT32 * (gates * values).abs()
    assert ((actual - gates * values).abs() <= bound).all()


@every_level
def test_gated_int8_is_the_product_of_both(isa: str) -> None:
    x, weight, bias = random_matrices(13, 70, 45)
    _, gate, gate_bias = random_matrices(12, 70, 45)
    both = _core.LinearKernel(weight.numpy(), bias.numpy(), "int8", isa, gate.numpy(), gate_bias.numpy())
    expected = run((x, gate, gate_bias), "int8", isa, "relu") * run((x, weight, bias), "int8", isa)
    assert torch.equal(torch.from_numpy(both(x.numpy(), "relu")), expected)


@every_level
@pytest.mark.parametrize(
    ("heads", "dim", "pairs"), [(1, 2, 1), (3, 20, 10), (2, 64, 32), (4, 15, 7), (3, 40, 5), (5, 8, 4)]
)
@pytest.mark.parametrize("rest", [0, 9])
def test_rotated(heads: int, dim: int, pairs: int, rest: int, isa: str) -> None:
    rows, inputs, outputs = 7, 12, heads * dim + rest
    x, weight, bias = random_matrices(rows, inputs, outputs)
    angles = torch.rand(11, pairs) * 6
    positions = torch.tensor([3, 0, 10, 1, 1, 7, 2], dtype=torch.int32)
    kernel = _core.LinearKernel(weight.numpy(), bias.numpy(), "fp32", isa)
    tables = (angles.cos(), angles.sin())
    actual = kernel.rotated(x.numpy(), heads, dim, *(y.numpy() for y in tables), positions.numpy())
    values, (cosine, sine) = run((x, weight, bias), "fp32", isa), (y[positions.long()].unsqueeze(1) for y in tables)
    turned = values[:, : heads * dim].unflatten(1, (heads, dim))
    first, second, others = turned.split([pairs, pairs, dim - 2 * pairs], 2)
    parts = [first * cosine - second * sine, second * cosine + first * sine, others]
    expected = torch.cat([torch.cat(parts, 2).flatten(1), values[:, heads * dim :]], 1)
    assert torch.equal(torch.from_numpy(actual), expected)


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
    with pytest.raises(ValueError, match="activation 'swish' is none of gelu, gelu_tanh, relu, silu, tanh"):
        _core.LinearKernel(one, one[0], "fp32", LEVELS[0])(one, "swish")
