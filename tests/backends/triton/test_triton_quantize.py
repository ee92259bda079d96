"""Rows in 8 bits and products of them: as int8 the CPU engine's numbers, as fp8 torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_check import DEVICE
from tolerance import FLOAT32, FP8_SUM

from fastce.backends.reference.ops import activate
from fastce.backends.triton import linear_8bit
from fastce.backends.triton.add_norm import add_norm, add_norm_8bit
from fastce.backends.triton.blocks import blocks_of_rows
from fastce.backends.triton.dropout import NO_DROPOUT
from fastce.backends.triton.engine import objections_to_fp8
from fastce.backends.triton.linear_8bit import TILES, Linear8Bit, Tiles, launch_linear_8bit, matrix_8bit, tiles_of
from fastce.backends.triton.quantize import Quantized, QuantizedRows, quantize
from fastce.backends.weights import NormWeights, products
from fastce.checkpoints.network import Stored
from fastce.spec import LayerNorm

DTYPES = (torch.int8, torch.float8_e4m3fn)
SHAPES = [(1, 1), (2, 3), (blocks_of_rows(52).rows, 52), (blocks_of_rows(52).rows + 1, 52), (3, 1025)]


def back(x: Quantized) -> torch.Tensor:
    zeros = 0.0 if x.zeros is None else x.zeros.double()[:, None]
    return (x.scales.double()[:, None] * (x.values.double() - zeros)).cpu()


def same(first: Quantized, second: Quantized) -> bool:
    """Also where torch knows no equality of fp8."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None or b is not None]
    return all(torch.equal(a.float(), b.float()) for a, b in pairs)


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_rows_equal_those_of_the_cpu_engine(rows: int, size: int) -> None:
    core = pytest.importorskip("fastce._core", reason="the C++ module was not built")
    x = torch.randn(rows, size) * torch.logspace(-20, 4, rows)[:, None]
    x[-1] = 0.0
    x[0] = x[0].abs()
    found = quantize(x.to(DEVICE), torch.int8)
    assert found.zeros is not None
    values, scales, zeros = core.quantize_kernel(x.numpy(), core.isa_levels()[-1])
    np.testing.assert_array_equal(found.values.cpu().numpy().astype(np.int32) + 128, values)
    np.testing.assert_array_equal(found.zeros.cpu().numpy() + 128, zeros)
    np.testing.assert_allclose(found.scales.cpu().numpy(), scales, rtol=3e-7)


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_rows_in_fp8_are_those_that_torch_casts(rows: int, size: int) -> None:
    """A row's largest number becomes the largest there is; half of a step goes to the even one."""
    x = torch.randn(rows, size) * torch.logspace(-20, 4, rows)[:, None] * torch.logspace(-4, 0, size)
    x[-1] = 0.0
    x[0, 0] = -448.0
    x[0, 1:] = torch.linspace(-448.0, 448.0, size - 1)
    found = quantize(x.to(DEVICE), torch.float8_e4m3fn)
    largest = x.abs().amax(1, keepdim=True)
    scaled = torch.where(largest > 0, x * (448.0 / largest), 0.0).clamp(-448.0, 448.0)
    assert torch.equal(found.values.cpu().float(), scaled.to(torch.float8_e4m3fn).float())
    assert found.zeros is None
    np.testing.assert_allclose(found.scales.cpu().numpy(), largest[:, 0].numpy() / 448.0, rtol=3e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_wider_matrix(dtype: torch.dtype) -> None:
    wide = torch.randn(5, 12, device=DEVICE)
    assert same(quantize(wide[:, 3:9], dtype), quantize(wide[:, 3:9].contiguous(), dtype))


@pytest.mark.parametrize(("dtype", "keep_sum"), [(torch.int8, True), (torch.int8, False), (torch.float8_e4m3fn, True)])
@pytest.mark.parametrize("rows", [1, blocks_of_rows(52).rows + 1])
def test_rows_of_a_norm(rows: int, dtype: torch.dtype, keep_sum: bool) -> None:
    """What a norm leaves in 8 bits is what its result in float32 becomes."""
    x, stream = torch.randn(2, rows, 52, device=DEVICE)
    weight, norm_bias, bias = torch.randn(3, 52, device=DEVICE)
    norm = NormWeights(LayerNorm(1e-5), weight, norm_bias)
    expected = add_norm(x, bias, stream, norm, NO_DROPOUT, keep_sum=keep_sum)
    found = add_norm_8bit(x, bias, stream, norm, dtype, keep_sum=keep_sum)
    assert all(torch.equal(part.as_subclass(torch.Tensor), other) for part, other in zip(found, expected, strict=True))
    assert isinstance(found[1], QuantizedRows)
    assert same(quantize(found[1], dtype), quantize(expected[1], dtype))
    assert type(found[1][:1]) is torch.Tensor, "some of the rows are no more all of them"


@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize("cut", TILES, ids=[f"{cut.rows} rows" for cut in TILES])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_products(cut: Tiles, beyond: int, activation: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_8bit, "tiles_of", lambda *shape: cut)
    check_product(cut.rows + beyond, cut.columns - beyond, cut.depth + 3 * beyond, activation, torch.int8)


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("cut", TILES[:-1], ids=[f"{cut.rows} rows" for cut in TILES[:-1]])
def test_products_in_fp8(cut: Tiles, activation: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if reasons := objections_to_fp8(torch.device(DEVICE)):
        pytest.skip(reasons[0])
    monkeypatch.setattr(linear_8bit, "tiles_of", lambda *shape: cut)
    check_product(cut.rows + 1, cut.columns - 1, cut.depth + 3, activation, torch.float8_e4m3fn)


def test_a_product_of_several_tiles() -> None:
    check_product(150, 130, 70, None, torch.int8)


def check_product(rows: int, columns: int, depth: int, activation: object, dtype: torch.dtype) -> None:
    """Integers are exact; what follows them is the rounding of a few operations. Of fp8 each sum rounds as well."""
    x = quantize(torch.randn(rows, depth, device=DEVICE) + 0.3, dtype)
    stored = matrix_8bit("", torch.randn(columns, depth), dtype)
    matrix = {name[1:]: part.tensor for name, part in stored.items()}
    bias = torch.randn(columns)
    weight, scales = (matrix[name].to(DEVICE) for name in ("weight", "scales"))
    sums = matrix["sums"].to(DEVICE) if "sums" in matrix else None
    found = launch_linear_8bit(x, weight, scales, sums, bias.to(DEVICE), activation, torch.float32).cpu()
    right = (matrix["weight"].double() * matrix["scales"].double()[:, None]).T
    exact = back(x) @ right + bias.double()
    expected = exact if activation is None else activate(exact, activation)
    bound = 8 * FLOAT32 * exact.abs().max()
    if dtype != torch.int8:
        bound += (depth * FLOAT32 if DEVICE == "cpu" else FP8_SUM) * float((back(x).abs() @ right.abs()).max())
    assert (found - expected).abs().max() <= bound


def test_the_number_of_programs_chooses_the_tiles() -> None:
    for dtype in DTYPES:
        assert tiles_of(16384, 384, dtype) == tiles_of(4096, 1536, dtype) == TILES[0]
        assert tiles_of(1024, 384, dtype) == TILES[1]
        assert tiles_of(64, 384, dtype) == TILES[1], "more rows than the smallest tile has"
    assert tiles_of(16, 384, torch.int8) == TILES[2]
    assert tiles_of(16, 384, torch.float8_e4m3fn) == TILES[1]


def test_a_matrix_is_rounded_evenly() -> None:
    weight = torch.randn(5, 40)
    weight[2] = 0.0
    matrix = {name: stored.tensor for name, stored in matrix_8bit("up", weight, torch.int8).items()}
    assert matrix["up.weight"].abs().amax(1).tolist() == [127, 127, 0, 127, 127]
    assert torch.equal(matrix["up.sums"], matrix["up.weight"].int().sum(1).int())
    error = (matrix["up.weight"] * matrix["up.scales"][:, None] - weight).abs()
    assert (error <= 0.501 * matrix["up.scales"][:, None]).all()


def test_a_matrix_in_fp8_has_its_largest_numbers_in_every_row() -> None:
    weight = torch.randn(5, 40) * torch.logspace(-3, 3, 5)[:, None]
    weight[2] = 0.0
    matrix = {name: stored.tensor for name, stored in matrix_8bit("up", weight, torch.float8_e4m3fn).items()}
    assert matrix.keys() == {"up.weight", "up.scales"}
    assert matrix["up.weight"].float().abs().amax(1).tolist() == [448, 448, 0, 448, 448]
    error = (matrix["up.weight"].float() * matrix["up.scales"][:, None] - weight).abs()
    assert (error <= weight.abs() * 1.01 * 2.0**-4 + 2.0**-10 * matrix["up.scales"][:, None]).all()


def test_matrices_in_one_tensor_are_one_product() -> None:
    matrix = matrix_8bit("", torch.randn(7, 20), torch.int8)
    bias, x = torch.randn(7), torch.randn(3, 20, device=DEVICE)

    def part(rows: slice) -> Linear8Bit:
        weight, scales, sums = (matrix[f".{name}"].whole for name in ("weight", "scales", "sums"))
        return Linear8Bit(*(Stored(whole[rows].to(DEVICE)) for whole in (weight, bias, scales, sums)))

    apart = [part(slice(0, 3)), part(slice(3, 7))]
    assert apart[0].beside(apart[1:]) is None, "tensors of their own"
    wholes = [
        Stored(matrix[".weight"].whole),
        Stored(bias),
        Stored(matrix[".scales"].whole),
        Stored(matrix[".sums"].whole),
    ]
    wholes = [Stored(stored.whole.to(DEVICE)) for stored in wholes]
    together = [Linear8Bit(*(stored._replace(rows=rows) for stored in wholes)) for rows in (slice(0, 3), slice(3, 7))]
    assert together[0].beside(together[1:]) is not None
    expected = [linear(x) for linear in apart]
    assert all(torch.equal(found, right) for found, right in zip(products(x, together), expected, strict=True))
