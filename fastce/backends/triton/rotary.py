"""Rotary embeddings of queries and keys, whose places follow from where the sequences lie."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.reference.ops import rotation
from fastce.backends.triton.sequences import Rows, extent
from fastce.packing import Spans
from fastce.spec import RotaryEmbedding

# Reference: fastce.backends.reference.ops.rotate.

BLOCK_ELEMENTS = 1024
"""Elements of one half of a head's rotated part, over the rows of a block."""


@triton.jit(do_not_specialize=["blocks"])
def rotary_kernel(
    x_ptr,  # [rows, heads, head_dim]
    output_ptr,  # [rows, heads, head_dim]
    cosine_ptr,  # [positions, pairs], float32
    sine_ptr,  # [positions, pairs], float32
    cu_seqlens_ptr,  # [num_pairs + 1]
    blocks,  # of the longest sequence
    x_stride,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    BACKWARD: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """Each program has some rows of one sequence, all heads. Forward turns by the angles, backward turns back."""
    sequence = tl.program_id(0) // blocks
    _, _, first_row, rows, first_place = extent(cu_seqlens_ptr, sequence, ROWS)
    index = tl.program_id(0) % blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
    pair = tl.arange(0, BLOCK_PAIRS)[None, :]  # [1, P]
    turns = (index < rows) & (pair < PAIRS)  # [R, P]
    angle = (first_place + index) * PAIRS + pair  # [R, P]
    cosine = tl.load(cosine_ptr + angle, mask=turns, other=0.0)  # [R, P]
    sine = tl.load(sine_ptr + angle, mask=turns, other=0.0)  # [R, P]
    if BACKWARD:
        sine = -sine
    stays = (index < rows) & (pair < HEAD_DIM - 2 * PAIRS)  # [R, P]
    row = (first_row + index).to(tl.int64)  # [R, 1]
    for head in range(HEADS):
        source = x_ptr + row * x_stride + head * HEAD_DIM + pair  # [R, P]
        target = output_ptr + row * (HEADS * HEAD_DIM) + head * HEAD_DIM + pair  # [R, P]
        first = tl.load(source, mask=turns, other=0.0).to(tl.float32)  # [R, P]
        second = tl.load(source + PAIRS, mask=turns, other=0.0).to(tl.float32)  # [R, P]
        tl.store(target, first * cosine - second * sine, mask=turns)
        tl.store(target + PAIRS, second * cosine + first * sine, mask=turns)
        if 2 * PAIRS < HEAD_DIM:
            tl.store(target + 2 * PAIRS, tl.load(source + 2 * PAIRS, mask=stays), mask=stays)


@cache  # for good: graphs read what they were made with
def rotation_tables(rotary: RotaryEmbedding, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the angles at each position, both float32 `[positions, pairs]`."""
    cosine, sine = rotation(torch.arange(positions), rotary, torch.float32)
    return cosine.to(device), sine.to(device)


def launch_rotary(x: torch.Tensor, spans: Spans, rotary: RotaryEmbedding, rows: Rows, *, back: bool) -> torch.Tensor:
    """Turns `[rows, heads, head_dim]`, whose heads lie side by side, or turns it back."""
    _, heads, head_dim = x.shape
    output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    cosine, sine = rotation_tables(rotary, triton.next_power_of_2(spans.longest), x.device)
    pairs = len(rotary.frequencies)
    block_pairs = triton.next_power_of_2(max(pairs, head_dim - 2 * pairs))
    block_rows = max(1, BLOCK_ELEMENTS // block_pairs) if rows == "all" else 1
    blocks = triton.cdiv(spans.longest, block_rows) if rows == "all" else 1
    rotary_kernel[(len(spans.lengths) * blocks,)](
        x,
        output,
        cosine,
        sine,
        spans.cu_seqlens,
        blocks,
        x.stride(0),
        HEADS=heads,
        HEAD_DIM=head_dim,
        PAIRS=pairs,
        ROWS=rows,
        BACKWARD=back,
        BLOCK_ROWS=block_rows,
        BLOCK_PAIRS=block_pairs,
    )
    return output


class RotaryFunction(Function):
    """Rotation of heads by their tokens' places; its gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, spans: Spans, rotary: RotaryEmbedding, rows: Rows) -> torch.Tensor:
        """See `Function`."""
        ctx.arguments = spans, rotary, rows
        return launch_rotary(x, spans, rotary, rows, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """See `Function`."""
        return launch_rotary(output_gradient.contiguous(), *ctx.arguments, back=True), None, None, None


def rotate(x: torch.Tensor, spans: Spans, rotary: RotaryEmbedding, rows: Rows) -> torch.Tensor:
    """Rotates heads by their tokens' places, in float32.

    Args:
        x: `[total_rows, heads, head_dim]`, a token's heads side by side.
        spans: The sequences.
        rotary: By which angles.
        rows: Which rows x has.

    Returns:
        The same shape in the dtype of x.
    """
    output: torch.Tensor = RotaryFunction.apply(x, spans, rotary, rows)
    return output
