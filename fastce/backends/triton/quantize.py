"""Rows in 8 bits: a scale and, as int8, a zero point a row, which are found where the row is made."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastce.backends.triton.blocks import INTERPRETED, blocks_of_rows

# Reference: the CPU engine's quantize_row, whose values are from 0 to 255, here less by 128; of fp8, torch's own cast.

STEPS = tl.constexpr(254.99)
"""A little less than 255 steps and a zero point rounded a little upwards keep all values inside, however rounded."""

TO_INTEGER = tl.constexpr(12582912.0)
"""1.5 * 2^23: a small number plus this, less this, is the number rounded to the nearest integer, half to even."""


LARGEST_FP8 = tl.constexpr(448.0)
"""The largest number of e4m3, which a row's largest becomes (https://arxiv.org/abs/2209.05433, table 1)."""


class Quantized(NamedTuple):
    """Rows x with `x = scales * (values - zeros)`, up to half a step.

    Attributes:
        values: int8 or fp8 (float8_e4m3fn) `[rows, size]`.
        scales: float32 `[rows]`.
        zeros: int32 `[rows]`; None for fp8, where they are 0.
    """

    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None


class QuantizedRows(torch.Tensor):
    """Rows that are there in 8 bits as well, as the kernel that made them left them; results of functions are plain.

    Attributes:
        quantized: The same rows.
    """

    quantized: Quantized
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def quantized_rows(x: torch.Tensor, quantized: Quantized) -> QuantizedRows:
    """Rows with what they are in 8 bits."""
    result: QuantizedRows = x.as_subclass(QuantizedRows)
    result.quantized = quantized
    return result


@triton.jit
def to_int8(x):
    """Rows of 0 and what is within [R, C] as int8 [R, C], with their scales [R, 1] and zero points [R, 1]."""
    low = tl.minimum(tl.min(x, 1, keep_dims=True), 0.0)  # [R, 1]
    span = tl.maximum(tl.max(x, 1, keep_dims=True), 0.0) - low  # [R, 1]
    steps = tl.where(span > 0.0, STEPS / tl.where(span > 0.0, span, 1.0), 0.0)  # [R, 1]
    zero = (0.501 - low * steps).to(tl.int32)  # [R, 1]
    value = (x * steps + zero.to(tl.float32) + TO_INTEGER) - TO_INTEGER  # [R, C]
    return (value - 128.0).to(tl.int8), span / STEPS, zero - 128


@triton.jit
def to_fp8(x):
    """Rows within [R, C] as fp8 [R, C], with their scales [R, 1]."""
    largest = tl.max(tl.abs(x), 1, keep_dims=True)  # [R, 1]
    steps = tl.where(largest > 0.0, LARGEST_FP8 / tl.where(largest > 0.0, largest, 1.0), 0.0)  # [R, 1]
    value = tl.minimum(tl.maximum(x * steps, -LARGEST_FP8), LARGEST_FP8)  # [R, C]
    if INTERPRETED:  # the interpreter's cast cuts off
        value = nearest_fp8(value)
    return value.to(tl.float8e4nv), largest / LARGEST_FP8


@triton.jit
def nearest_fp8(x):
    """The number of e4m3 next to each float32 of a block, half to even: 3 bits behind the first, none below 2^-9."""
    exponent = tl.maximum((x.to(tl.int32, bitcast=True) >> 23) & 255, 127 - 6)
    huge = 1.5 * ((exponent + 23 - 3) << 23).to(tl.float32, bitcast=True)  # numbers next to it are a step apart
    return (x + huge) - huge


@triton.jit
def store_quantized(x, values_ptr, scales_ptr, zeros_ptr, row, place, in_rows, inside):
    """Stores rows [R, C], 0 beyond their end, in int8, or in fp8 where there are no zero points."""
    if zeros_ptr is None:
        value, scale = to_fp8(x)  # [R, C], [R, 1]
    else:
        value, scale, zero = to_int8(x)  # [R, C], [R, 1], [R, 1]
        tl.store(zeros_ptr + row, zero, mask=in_rows)
    tl.store(values_ptr + place, value, mask=inside)
    tl.store(scales_ptr + row, scale, mask=in_rows)


@triton.jit(do_not_specialize=["rows"])
def quantize_kernel(
    x_ptr,  # [rows, size]
    values_ptr,  # [rows, size], int8 or fp8
    scales_ptr,  # [rows], float32
    zeros_ptr,  # [rows], int32, or None for fp8
    rows,
    x_stride,
    SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has a block of whole rows."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
    column = tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    in_rows = row < rows  # [R, 1]
    inside = in_rows & (column < SIZE)  # [R, C]
    x = tl.load(x_ptr + row.to(tl.int64) * x_stride + column, mask=inside, other=0.0).to(tl.float32)  # [R, C]
    store_quantized(x, values_ptr, scales_ptr, zeros_ptr, row, row.to(tl.int64) * SIZE + column, in_rows, inside)


def empty_quantized(rows: int, size: int, dtype: torch.dtype, device: torch.device) -> Quantized:
    """Memory for rows in 8 bits."""
    values = torch.empty(rows, size, dtype=dtype, device=device)
    scales = torch.empty(rows, dtype=torch.float32, device=device)
    zeros = torch.empty(rows, dtype=torch.int32, device=device) if dtype == torch.int8 else None
    return Quantized(values, scales, zeros)


def quantize(x: torch.Tensor, dtype: torch.dtype) -> Quantized:
    """Rows `[rows, size]` in int8 or fp8: those that came with them, or made here."""
    if isinstance(x, QuantizedRows):
        return x.quantized
    rows, size = x.shape
    result = empty_quantized(rows, size, dtype, x.device)
    blocks = blocks_of_rows(size)
    quantize_kernel[(triton.cdiv(rows, blocks.rows),)](
        x,
        *result,
        rows,
        x.stride(0),
        SIZE=size,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    return result
