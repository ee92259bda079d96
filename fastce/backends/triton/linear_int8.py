"""Linear layers in int8: weights with a scale an output channel, activations with a scale and a zero point a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastce.backends.triton.activation import activate
from fastce.backends.triton.quantize import Quantized, quantize
from fastce.backends.weights import Linear, Weights, join
from fastce.checkpoints.network import Stored
from fastce.spec import Activation

# Reference: the CPU engine's int8 products, and fastce.backends.reference.ops.activated.


class Tiles(NamedTuple):
    """How a product is cut into tiles.

    Attributes:
        rows: Rows of a tile.
        columns: Columns of a tile.
        depth: Values of a row that are multiplied at a time.
        warps: Warps of a program.
        stages: Operands that are loaded ahead.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


TILES = (Tiles(128, 128, 64, 8, 4), Tiles(64, 64, 128, 4, 4), Tiles(16, 64, 128, 4, 4))
"""The tiles that there are, largest first: what fills a GPU, what a few hundred tokens need, and rows of a head."""

PROGRAMS = 132
"""Programs that a product is cut into at least, where there is work for them: Hopper's multiprocessors."""


@triton.jit(do_not_specialize=["rows"])
def linear_int8_kernel(
    values_ptr,  # [rows, depth], int8
    scales_ptr,  # [rows], float32
    zeros_ptr,  # [rows], int32
    weight_ptr,  # [columns, depth], int8
    weight_scales_ptr,  # [columns], float32
    weight_sums_ptr,  # [columns], int32: of the weights of a row
    bias_ptr,  # [columns], float32, or None
    output_ptr,  # [rows, columns]
    rows,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    ACTIVATION: tl.constexpr,  # or None
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """Each program has a tile of the output."""
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)  # [M]
    column = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)  # [N]
    in_rows, in_columns = row < rows, column < COLUMNS  # [M], [N]
    long_row = row.to(tl.int64)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.int32)  # [M, N]
    for first in range(0, DEPTH, BLOCK_DEPTH):
        place = first + tl.arange(0, BLOCK_DEPTH)  # [K]
        inside = place[None, :] < DEPTH  # [1, K]
        x = tl.load(values_ptr + long_row[:, None] * DEPTH + place[None, :], mask=in_rows[:, None] & inside, other=0)
        w = tl.load(weight_ptr + column[:, None] * DEPTH + place[None, :], mask=in_columns[:, None] & inside, other=0)
        total = tl.dot(x, tl.trans(w), acc=total, out_dtype=tl.int32)  # [M, K] @ [K, N]
    zero = tl.load(zeros_ptr + row, mask=in_rows, other=0)  # [M]
    weight_sum = tl.load(weight_sums_ptr + column, mask=in_columns, other=0)  # [N]
    scale = tl.load(scales_ptr + row, mask=in_rows, other=0.0)  # [M]
    weight_scale = tl.load(weight_scales_ptr + column, mask=in_columns, other=0.0)  # [N]
    y = (total - zero[:, None] * weight_sum[None, :]).to(tl.float32) * (scale[:, None] * weight_scale[None, :])
    if bias_ptr is not None:
        y += tl.load(bias_ptr + column, mask=in_columns, other=0.0)[None, :]
    if ACTIVATION is not None:
        y = activate(y, ACTIVATION)
    output = output_ptr + long_row[:, None] * COLUMNS + column[None, :]  # [M, N]
    tl.store(output, y, mask=in_rows[:, None] & in_columns[None, :])


def tiles_of(rows: int, columns: int) -> Tiles:
    """The largest tiles that there are enough of; the smallest where there never are."""
    for cut in TILES[:-1]:
        if triton.cdiv(rows, cut.rows) * triton.cdiv(columns, cut.columns) >= PROGRAMS:
            return cut
    return TILES[-1] if rows <= TILES[-1].rows else TILES[-2]


def launch_linear_int8(
    x: Quantized,
    weight: torch.Tensor,
    scales: torch.Tensor,
    sums: torch.Tensor,
    bias: torch.Tensor | None,
    activation: Activation | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """activation(x @ weight.T + bias), `[rows, columns]` in a dtype.

    Args:
        x: `[rows, depth]`.
        weight: int8 `[columns, depth]`.
        scales: Of the weight's rows, float32 `[columns]`.
        sums: Of the weight's rows, int32 `[columns]`.
        bias: float32 `[columns]`, or None.
        activation: The activation, or None.
        dtype: Of the result.
    """
    (rows, depth), columns = x.values.shape, len(weight)
    output = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    cut = tiles_of(rows, columns)
    linear_int8_kernel[triton.cdiv(columns, cut.columns), triton.cdiv(rows, cut.rows)](
        *x,
        weight,
        scales,
        sums,
        bias,
        output,
        rows,
        COLUMNS=columns,
        DEPTH=depth,
        ACTIVATION=activation,
        BLOCK_ROWS=cut.rows,
        BLOCK_COLUMNS=cut.columns,
        BLOCK_DEPTH=cut.depth,
        num_warps=cut.warps,
        num_stages=cut.stages,
    )
    return output


@dataclass(frozen=True)
class Int8Linear(Linear):
    """A linear layer in int8, whose results are in bfloat16 as those of the CPU engine are inside attention.

    Attributes:
        scales: Of the weight's rows.
        sums: Of the weight's rows.
    """

    scales: Stored
    sums: Stored

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return self._run(x, bias, None)

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        """The activation of the layer, in the same pass."""
        return self._run(x, None if self.bias is None else self.bias.tensor, activation)

    def beside(self, others: Sequence[Linear]) -> Int8Linear | None:
        """See `Linear`."""
        whole = super().beside(others)
        scales, sums = (join([getattr(part, name) for part in (self, *others)]) for name in ("scales", "sums"))
        if whole is None or scales is None or sums is None:
            return None
        return Int8Linear(whole.weight, whole.bias, scales, sums)

    def _run(self, x: torch.Tensor, bias: torch.Tensor | None, activation: Activation | None) -> torch.Tensor:
        tensors = self.weight.tensor, self.scales.tensor, self.sums.tensor
        return launch_linear_int8(quantize(x), *tensors, bias, activation, torch.bfloat16)


class TritonWeights(Weights):
    """Parameters by name, matrices perhaps in int8."""

    def linear(self, name: str) -> Linear:
        """A linear layer."""
        plain = super().linear(name)
        if plain.weight.whole.dtype != torch.int8:
            return plain
        return Int8Linear(plain.weight, plain.bias, self.stored[f"{name}.scales"], self.stored[f"{name}.sums"])


def int8_matrix(name: str, weight: torch.Tensor) -> Mapping[str, Stored]:
    """A matrix `[out_features, in_features]` as a layer of this name has it: symmetric, a scale a row."""
    largest = weight.abs().amax(1)
    inverse = torch.where(largest > 0, 127.0 / largest, 0.0)
    values = (weight * inverse.unsqueeze(1)).round().to(torch.int8)
    sums = values.sum(1, dtype=torch.int32)
    parts = {"weight": values, "scales": largest / 127.0, "sums": sums}
    return {f"{name}.{part}": Stored(tensor) for part, tensor in parts.items()}
