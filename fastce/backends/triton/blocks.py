"""What several kernels do to a block of numbers, and how they cut matrices into blocks.

Numbers that differ from batch to batch are not specialised on (`do_not_specialize`): they would cost a compilation.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter, on the CPU: decided when they are imported."""

BLOCK_ELEMENTS = 2048
"""Elements of a block that a kernel bound by memory works on: 16 for each thread of four warps, 32 bytes of halves."""

WIDEST_BLOCK = 256
"""Columns of such a block at most, where a row needs not lie in one block."""


class Blocks(NamedTuple):
    """How a kernel cuts `[rows, size]` into blocks.

    Attributes:
        rows: Rows of a block, a power of two.
        columns: Columns of a block, a power of two.
        warps: Warps that work on it.
    """

    rows: int
    columns: int
    warps: int = 4


def blocks_of_rows(size: int) -> Blocks:
    """Blocks of whole rows of this size, for kernels that add along a row."""
    columns = triton.next_power_of_2(size)
    warps = min(16, max(4, columns // 512))
    return Blocks(max(1, BLOCK_ELEMENTS // 2 // columns), columns, warps)


def blocks_of_elements(size: int) -> Blocks:
    """Blocks of rows of this size, for kernels that take each element by itself."""
    columns = min(triton.next_power_of_2(size), WIDEST_BLOCK)
    return Blocks(BLOCK_ELEMENTS // columns, columns)


@triton.jit
def product(a, b, total):
    """`total + a @ b` in float32: float32 operands are multiplied as such, never rounded to TF32.

    Args:
        a: [M, K].
        b: [K, N].
        total: [M, N], float32.
    """
    if INTERPRETED and a.dtype == tl.bfloat16:  # NumPy has no bfloat16: the interpreter would multiply the bits
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc=total, input_precision="ieee")
