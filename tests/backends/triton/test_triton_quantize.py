"""Rows as int8 and products of them: the CPU engine's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_check import DEVICE

from fastce.backends.reference.ops import activate
from fastce.backends.triton.add_norm import add_norm, add_norm_int8
from fastce.backends.triton.blocks import blocks_of_rows
from fastce.backends.triton.dropout import NO_DROPOUT
from fastce.backends.triton.linear_int8 import TILES, Int8Linear, int8_matrix, launch_linear_int8, tiles_of
from fastce.backends.triton.quantize import Quantized, QuantizedRows, quantize
from fastce.backends.weights import NormWeights, products
from fastce.checkpoints.network import Stored
from fastce.spec import LayerNorm

SHAPES = [(1, 1), (2, 3), (blocks_of_rows(52).rows, 52), (blocks_of_rows(52).rows + 1, 52), (3, 1025)]


def back(x: Quantized) -> torch.Tensor:
    return (x.scales.double()[:, None] * (x.values.double() - x.zeros.double()[:, None])).cpu()


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_rows_equal_those_of_the_cpu_engine(rows: int, size: int) -> None:
    core = pytest.importorskip("fastce._core", reason="the C++ module was not built")
    x = torch.randn(rows, size) * torch.logspace(-20, 4, rows)[:, None]
    x[-1] = 0.0
    x[0] = x[0].abs()
    found = quantize(x.to(DEVICE))
    values, scales, zeros = core.quantize_kernel(x.numpy(), core.isa_levels()[-1])
    np.testing.assert_array_equal(found.values.cpu().numpy().astype(np.int32) + 128, values)
    np.testing.assert_array_equal(found.zeros.cpu().numpy() + 128, zeros)
    np.testing.assert_allclose(found.scales.cpu().numpy(), scales, rtol=3e-7)


def test_rows_of_a_wider_matrix() -> None:
    wide = torch.randn(5, 12, device=DEVICE)
    found, expected = quantize(wide[:, 3:9]), quantize(wide[:, 3:9].contiguous())
    assert all(torch.equal(part, other) for part, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("keep_sum", [True, False])
@pytest.mark.parametrize("rows", [1, blocks_of_rows(52).rows + 1])
def test_rows_of_a_norm(rows: int, keep_sum: bool) -> None:
    """What a norm leaves in int8 is what its result in float32 becomes."""
    x, stream = torch.randn(2, rows, 52, device=DEVICE)
    weight, norm_bias, bias = torch.randn(3, 52, device=DEVICE)
    norm = NormWeights(LayerNorm(1e-5), weight, norm_bias)
    expected = add_norm(x, bias, stream, norm, NO_DROPOUT, keep_sum=keep_sum)
    found = add_norm_int8(x, bias, stream, norm, keep_sum=keep_sum)
    assert all(torch.equal(part.as_subclass(torch.Tensor), other) for part, other in zip(found, expected, strict=True))
    assert isinstance(found[1], QuantizedRows)
    pairs = zip(quantize(found[1]), quantize(expected[1]), strict=True)
    assert all(torch.equal(part, other) for part, other in pairs)
    assert type(found[1][:1]) is torch.Tensor, "some of the rows are no more all of them"


@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize("cut", TILES, ids=[f"{cut.rows} rows" for cut in TILES])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_products(cut: object, beyond: int, activation: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers are exact; what follows them is the rounding of a few operations."""
    from fastce.backends.triton import linear_int8

    monkeypatch.setattr(linear_int8, "tiles_of", lambda *shape: cut)
    rows, columns, depth = cut.rows + beyond, cut.columns - beyond, cut.depth + 3 * beyond
    check_product(rows, columns, depth, activation)


def test_a_product_of_several_tiles() -> None:
    check_product(150, 130, 70, None)


def check_product(rows: int, columns: int, depth: int, activation: object) -> None:
    x = quantize(torch.randn(rows, depth, device=DEVICE) + 0.3)
    matrix = {name[1:]: stored.tensor for name, stored in int8_matrix("", torch.randn(columns, depth)).items()}
    bias = torch.randn(columns)
    on_device = (matrix[name].to(DEVICE) for name in ("weight", "scales", "sums"))
    found = launch_linear_int8(x, *on_device, bias.to(DEVICE), activation, torch.float32).cpu()
    exact = back(x) @ (matrix["weight"].double() * matrix["scales"].double()[:, None]).T + bias.double()
    expected = exact if activation is None else activate(exact, activation)
    assert (found - expected).abs().max() <= 8 * 2.0**-24 * exact.abs().max()


def test_the_number_of_programs_chooses_the_tiles() -> None:
    assert tiles_of(16384, 384) == tiles_of(4096, 1536) == TILES[0]
    assert tiles_of(1024, 384) == TILES[1]
    assert tiles_of(64, 384) == TILES[1], "more rows than the smallest tile has"
    assert tiles_of(16, 384) == TILES[2]


def test_a_matrix_is_rounded_evenly() -> None:
    weight = torch.randn(5, 40)
    weight[2] = 0.0
    matrix = {name: stored.tensor for name, stored in int8_matrix("up", weight).items()}
    assert matrix["up.weight"].abs().amax(1).tolist() == [127, 127, 0, 127, 127]
    assert torch.equal(matrix["up.sums"], matrix["up.weight"].int().sum(1).int())
    error = (matrix["up.weight"] * matrix["up.scales"][:, None] - weight).abs()
    assert (error <= 0.501 * matrix["up.scales"][:, None]).all()


def test_matrices_in_one_tensor_are_one_product() -> None:
    matrix = int8_matrix("", torch.randn(7, 20))
    bias, x = torch.randn(7), torch.randn(3, 20, device=DEVICE)

    def part(rows: slice) -> Int8Linear:
        weight, scales, sums = (matrix[f".{name}"].whole for name in ("weight", "scales", "sums"))
        return Int8Linear(*(Stored(whole[rows].to(DEVICE)) for whole in (weight, bias, scales, sums)))

    apart = [part(slice(0, 3)), part(slice(3, 7))]
    assert apart[0].beside(apart[1:]) is None, "tensors of their own"
    wholes = [
        Stored(matrix[".weight"].whole),
        Stored(bias),
        Stored(matrix[".scales"].whole),
        Stored(matrix[".sums"].whole),
    ]
    wholes = [Stored(stored.whole.to(DEVICE)) for stored in wholes]
    together = [Int8Linear(*(stored._replace(rows=rows) for stored in wholes)) for rows in (slice(0, 3), slice(3, 7))]
    assert together[0].beside(together[1:]) is not None
    expected = [linear(x) for linear in apart]
    assert all(torch.equal(found, right) for found, right in zip(products(x, together), expected, strict=True))
