"""Dropout from Philox counters: what drops follows from a seed and an element's place, so that nothing is kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.triton.blocks import blocks_of_elements

# Reference: fastce.backends.reference.ops.dropout.

ROUNDS = tl.constexpr(7)
"""Rounds of Philox4x32: the fewest that pass BigCrush (https://doi.org/10.1145/2063384.2063405, table 2)."""


class Dropout(NamedTuple):
    """What decides which elements drop.

    Attributes:
        seed: Key of the generator.
        probability: Of an element to become 0.
    """

    seed: int
    probability: float


NO_DROPOUT = Dropout(0, 0.0)


def draw(probability: float) -> Dropout:
    """A dropout with a seed of its own from torch's generator on the host."""
    return Dropout(int(torch.randint(2**63 - 1, ())), probability) if probability > 0.0 else NO_DROPOUT


@triton.jit
def keep_factors(seed, probability, row, column, head):
    """What dropout multiplies elements with: 0, or what makes up for those that become 0.

    The generator's counters are an element's place: row, column and head, int32, of shapes that broadcast.
    """
    word, _, _, _ = tl.philox(seed, column, row, head, 0 * column, ROUNDS)
    uniform = (word >> 8).to(tl.float32) * (1.0 / (1 << 24))  # in [0, 1)
    return tl.where(uniform < probability, 0.0, 1.0 / (1.0 - probability))


@triton.jit(do_not_specialize=["rows", "seed"])
def dropout_kernel(
    x_ptr,  # [rows, size]
    output_ptr,  # [rows, size]
    rows,
    seed,
    probability,
    SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Forward, of x, and backward, of the output's gradient: the same factors."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    inside = (row < rows) & (column < SIZE)  # [R, C]
    place = row.to(tl.int64) * SIZE + column  # [R, C]
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
    tl.store(output_ptr + place, x * keep_factors(seed, probability, row, column, 0), mask=inside)


def launch_dropout(x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
    """Multiplies `[rows, size]` with the factors of its elements."""
    x = x.contiguous()
    output = torch.empty_like(x)
    rows, size = x.shape
    blocks = blocks_of_elements(size)
    grid = (triton.cdiv(rows, blocks.rows), triton.cdiv(size, blocks.columns))
    dropout_kernel[grid](
        x,
        output,
        rows,
        dropout.seed,
        dropout.probability,
        SIZE=size,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    return output


class DropoutFunction(Function):
    """Dropout of `[rows, size]`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """See `Function`."""
        ctx.dropout = dropout
        return launch_dropout(x, dropout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """See `Function`."""
        return launch_dropout(output_gradient, ctx.dropout), None


def dropout(x: torch.Tensor, probability: float) -> torch.Tensor:
    """See `fastce.backends.ops.Ops`."""
    output: torch.Tensor = DropoutFunction.apply(x.reshape(-1, x.shape[-1]), draw(probability))
    return output.view(x.shape)
