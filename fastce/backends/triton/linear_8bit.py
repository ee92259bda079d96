"""Linear layers in 8 bits: weights with a scale an output channel, activations with a scale a token.

In int8 activations have a zero point besides; fp8 is float8_e4m3fn, for GPUs that multiply it.
"""

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

# Reference: fastce.backends.reference.ops.activated of what the numbers stand for.


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
def linear_8bit_kernel(
    values_ptr,  # [rows, depth], int8 or fp8
    scales_ptr,  # [rows], float32
    zeros_ptr,  # [rows], int32, or None for fp8
    weight_ptr,  # [columns, depth], as the values
    weight_scales_ptr,  # [columns], float32
    weight_sums_ptr,  # [columns], int32: of the weights of a row; or None for fp8
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
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32 if zeros_ptr is None else tl.int32)  # [M, N]
    for first in range(0, DEPTH, BLOCK_DEPTH):
        place = first + tl.arange(0, BLOCK_DEPTH)  # [K]
        inside = place[None, :] < DEPTH  # [1, K]
        x = tl.load(values_ptr + long_row[:, None] * DEPTH + place[None, :], mask=in_rows[:, None] & inside, other=0.0)
        w = tl.load(weight_ptr + column[:, None] * DEPTH + place[None, :], mask=in_columns[:, None] & inside, other=0.0)
        if zeros_ptr is None:  # Hopper's tensor cores keep 14 bits of a sum, so only a block is added there
            total = tl.dot(x, tl.trans(w), acc=total, max_num_imprecise_acc=BLOCK_DEPTH)  # [M, K] @ [K, N]
        else:
            total = tl.dot(x, tl.trans(w), acc=total, out_dtype=tl.int32)  # [M, K] @ [K, N]
    if zeros_ptr is not None:
        zero = tl.load(zeros_ptr + row, mask=in_rows, other=0)  # [M]
        weight_sum = tl.load(weight_sums_ptr + column, mask=in_columns, other=0)  # [N]
        total -= zero[:, None] * weight_sum[None, :]
    scale = tl.load(scales_ptr + row, mask=in_rows, other=0.0)  # [M]
    weight_scale = tl.load(weight_scales_ptr + column, mask=in_columns, other=0.0)  # [N]
    y = total.to(tl.float32) * (scale[:, None] * weight_scale[None, :])  # [M, N]
    if bias_ptr is not None:
        y += tl.load(bias_ptr + column, mask=in_columns, other=0.0)[None, :]
    if ACTIVATION is not None:
        y = activate(y, ACTIVATION)
    output = output_ptr + long_row[:, None] * COLUMNS + column[None, :]  # [M, N]
    tl.store(output, y, mask=in_rows[:, None] & in_columns[None, :])


def tiles_of(rows: int, columns: int, dtype: torch.dtype) -> Tiles:
    """The largest tiles that there are enough of; the smallest where there never are.

    Of fp8 none has fewer than 64 rows: with these Hopper's tensor cores would multiply it as float16.
    """
    for cut in TILES[:-1]:
        if triton.cdiv(rows, cut.rows) * triton.cdiv(columns, cut.columns) >= PROGRAMS:
            return cut
    return TILES[-1] if rows <= TILES[-1].rows and dtype == torch.int8 else TILES[-2]


def launch_linear_8bit(
    x: Quantized,
    weight: torch.Tensor,
    scales: torch.Tensor,
    sums: torch.Tensor | None,
    bias: torch.Tensor | None,
    activation: Activation | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """activation(x @ weight.T + bias), `[rows, columns]` in a dtype.

    Args:
        x: `[rows, depth]`.
        weight: `[columns, depth]`, in the dtype of x.
        scales: Of the weight's rows, float32 `[columns]`.
        sums: Of the weight's rows, int32 `[columns]`; None for fp8.
        bias: float32 `[columns]`, or None.
        activation: The activation, or None.
        dtype: Of the result.
    """
    (rows, depth), columns = x.values.shape, len(weight)
    output = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    cut = tiles_of(rows, columns, weight.dtype)
    linear_8bit_kernel[triton.cdiv(columns, cut.columns), triton.cdiv(rows, cut.rows)](
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
class Linear8Bit(Linear):
    """A linear layer in 8 bits, whose results are in bfloat16 as those of the CPU engine are inside attention.

    Attributes:
        scales: Of the weight's rows.
        sums: Of the weight's rows; None for fp8.
    """

    scales: Stored
    sums: Stored | None

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return self._run(x, bias, None)

    def activated(self, x: torch.Tensor, activation: Activation) -> torch.Tensor:
        """The activation of the layer, in the same pass."""
        return self._run(x, None if self.bias is None else self.bias.tensor, activation)

    def beside(self, others: Sequence[Linear]) -> Linear8Bit | None:
        """See `Linear`."""
        whole, parts = super().beside(others), [part for part in (self, *others) if isinstance(part, Linear8Bit)]
        scales, of_sums = join([part.scales for part in parts]), [part.sums for part in parts if part.sums is not None]
        sums = join(of_sums) if of_sums else None
        if whole is None or scales is None or (sums is None and of_sums):
            return None
        return Linear8Bit(whole.weight, whole.bias, scales, sums)

    def _run(self, x: torch.Tensor, bias: torch.Tensor | None, activation: Activation | None) -> torch.Tensor:
        weight, sums = self.weight.tensor, None if self.sums is None else self.sums.tensor
        rows = quantize(x, weight.dtype)
        return launch_linear_8bit(rows, weight, self.scales.tensor, sums, bias, activation, torch.bfloat16)


class TritonWeights(Weights):
    """Parameters by name, matrices perhaps in 8 bits."""

    def linear(self, name: str) -> Linear:
        """A linear layer."""
        plain, scales = super().linear(name), self.stored.get(f"{name}.scales")
        if scales is None:
            return plain
        return Linear8Bit(plain.weight, plain.bias, scales, self.stored.get(f"{name}.sums"))


def matrix_8bit(name: str, weight: torch.Tensor, dtype: torch.dtype) -> Mapping[str, Stored]:
    """A matrix `[out_features, in_features]` as a layer of this name has it: symmetric, a scale a row."""
    largest, most = weight.abs().amax(1), torch.finfo(dtype).max if dtype.is_floating_point else 127.0
    inverse = torch.where(largest > 0, most / largest, 0.0)
    scaled = (weight * inverse.unsqueeze(1)).clamp(-most, most)
    parts = {"scales": largest / most}
    if dtype == torch.int8:
        scaled = scaled.round()
        parts["sums"] = scaled.sum(1).to(torch.int32)
    parts["weight"] = scaled.to(dtype)
    return {f"{name}.{part}": Stored(tensor) for part, tensor in parts.items()}
