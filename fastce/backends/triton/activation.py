"""Bias and activation in one pass, and the gate of gated feed-forward networks."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastce.backends.triton.blocks import blocks_of_elements
from fastce.spec import Activation

# Reference: fastce.backends.reference.ops.activated and gated.

ROW_PROGRAMS = 256
"""Programs among which the backward pass shares the rows: each leaves one row of partial sums of the biases."""


@triton.jit
def normal_distribution(x):
    """The standard normal distribution function; `erf` is the exact one."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def tanh(x):
    """The hyperbolic tangent: within rounding of numbers of size 1."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def tanh_argument(x):
    """What the approximation of GELU takes the hyperbolic tangent of (https://arxiv.org/abs/1606.08415)."""
    return 0.7978845608028654 * (x + 0.044715 * x * x * x)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of a float32 block."""
    if ACTIVATION == "gelu":
        return x * normal_distribution(x)
    elif ACTIVATION == "gelu_tanh":
        return 0.5 * x * (1.0 + tanh(tanh_argument(x)))
    elif ACTIVATION == "relu":
        return tl.maximum(x, 0.0)
    elif ACTIVATION == "silu":
        return x * tl.sigmoid(x)
    else:
        tl.static_assert(ACTIVATION == "tanh")
        return tanh(x)


@triton.jit
def slope(x, ACTIVATION: tl.constexpr):
    """The derivative of the activation, of a float32 block."""
    if ACTIVATION == "gelu":
        return normal_distribution(x) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    elif ACTIVATION == "gelu_tanh":
        bent = tanh(tanh_argument(x))
        inner = 0.7978845608028654 * (1.0 + 3.0 * 0.044715 * x * x)
        return 0.5 * (1.0 + bent) + 0.5 * x * (1.0 - bent * bent) * inner
    elif ACTIVATION == "relu":
        return tl.where(x > 0.0, 1.0, 0.0)
    elif ACTIVATION == "silu":
        share = tl.sigmoid(x)
        return share * (1.0 + x * (1.0 - share))
    else:
        tl.static_assert(ACTIVATION == "tanh")
        bent = tanh(x)
        return 1.0 - bent * bent


@triton.jit
def biased(x_ptr, bias_ptr, row, column, stride, inside, in_row):
    """Loads a block `[R, C]` of x in float32 and adds the bias, where there is one."""
    x = tl.load(x_ptr + row.to(tl.int64) * stride + column, mask=inside, other=0.0).to(tl.float32)  # [R, C]
    if bias_ptr is not None:
        x += tl.load(bias_ptr + column, mask=in_row, other=0.0).to(tl.float32)  # [1, C]
    return x


@triton.jit(do_not_specialize=["rows"])
def activation_forward_kernel(
    x_ptr,  # [rows, size]
    bias_ptr,  # [size], or None
    up_ptr,  # [rows, size]: what the activation gates; or None
    up_bias_ptr,  # [size], or None
    output_ptr,  # [rows, size]
    rows,
    x_stride,
    up_stride,
    SIZE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has a block of the output."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    in_row = column < SIZE  # [1, C]
    inside = (row < rows) & in_row  # [R, C]
    y = activate(biased(x_ptr, bias_ptr, row, column, x_stride, inside, in_row), ACTIVATION)  # [R, C]
    if up_ptr is not None:
        y *= biased(up_ptr, up_bias_ptr, row, column, up_stride, inside, in_row)
    tl.store(output_ptr + row.to(tl.int64) * SIZE + column, y, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def activation_backward_kernel(
    output_gradient_ptr,  # [rows, size]
    x_ptr,  # [rows, size]
    bias_ptr,  # [size], or None
    up_ptr,  # [rows, size], or None
    up_bias_ptr,  # [size], or None
    x_gradient_ptr,  # [rows, size]
    up_gradient_ptr,  # [rows, size], or None
    bias_sums_ptr,  # [row programs, size], float32, or None
    up_bias_sums_ptr,  # [row programs, size], float32, or None
    rows,
    x_stride,
    up_stride,
    SIZE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Each program has some columns of every so many blocks of rows, and one row of the sums of each bias."""
    program = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]  # [1, C]
    in_row = column < SIZE  # [1, C]
    bias_sum = tl.zeros((1, BLOCK_COLUMNS), dtype=tl.float32)  # [1, C]
    up_bias_sum = tl.zeros((1, BLOCK_COLUMNS), dtype=tl.float32)  # [1, C]
    for block in range(program, tl.cdiv(rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]  # [R, 1]
        inside = (row < rows) & in_row  # [R, C]
        place = row.to(tl.int64) * SIZE + column  # [R, C]
        gradient = tl.load(output_gradient_ptr + place, mask=inside, other=0.0).to(tl.float32)  # [R, C]
        x = biased(x_ptr, bias_ptr, row, column, x_stride, inside, in_row)  # [R, C]
        if up_ptr is not None:
            up = biased(up_ptr, up_bias_ptr, row, column, up_stride, inside, in_row)  # [R, C]
            up_gradient = gradient * activate(x, ACTIVATION)  # [R, C]
            tl.store(up_gradient_ptr + place, up_gradient, mask=inside)
            up_bias_sum += tl.sum(up_gradient, 0, keep_dims=True)
            gradient *= up
        x_gradient = gradient * slope(x, ACTIVATION)  # [R, C]
        tl.store(x_gradient_ptr + place, x_gradient, mask=inside)
        bias_sum += tl.sum(x_gradient, 0, keep_dims=True)
    if bias_sums_ptr is not None:
        tl.store(bias_sums_ptr + program * SIZE + column, bias_sum, mask=in_row)
    if up_bias_sums_ptr is not None:
        tl.store(up_bias_sums_ptr + program * SIZE + column, up_bias_sum, mask=in_row)


def launch_forward(
    activation: Activation,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    up: torch.Tensor | None,
    up_bias: torch.Tensor | None,
) -> torch.Tensor:
    """The output, `[rows, size]` in the dtype of x."""
    rows, size = x.shape
    output = torch.empty(rows, size, dtype=x.dtype, device=x.device)
    blocks = blocks_of_elements(size)
    activation_forward_kernel[triton.cdiv(rows, blocks.rows), triton.cdiv(size, blocks.columns)](
        x,
        bias,
        up,
        up_bias,
        output,
        rows,
        x.stride(0),
        0 if up is None else up.stride(0),
        SIZE=size,
        ACTIVATION=activation,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    return output


def launch_backward(
    activation: Activation,
    output_gradient: torch.Tensor,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    up: torch.Tensor | None,
    up_bias: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    """The gradients of x, bias, up and up_bias, each None where that is."""
    rows, size = x.shape
    blocks = blocks_of_elements(size)
    programs = min(triton.cdiv(rows, blocks.rows), ROW_PROGRAMS)
    x_gradient, up_gradient = (
        None if part is None else torch.empty(rows, size, dtype=part.dtype, device=x.device) for part in (x, up)
    )
    bias_sums, up_bias_sums = (
        None if part is None else torch.empty(programs, size, dtype=torch.float32, device=x.device)
        for part in (bias, up_bias)
    )
    activation_backward_kernel[programs, triton.cdiv(size, blocks.columns)](
        output_gradient.contiguous(),
        x,
        bias,
        up,
        up_bias,
        x_gradient,
        up_gradient,
        bias_sums,
        up_bias_sums,
        rows,
        x.stride(0),
        0 if up is None else up.stride(0),
        SIZE=size,
        ACTIVATION=activation,
        BLOCK_ROWS=blocks.rows,
        BLOCK_COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )
    bias_gradient, up_bias_gradient = (
        None if sums is None or part is None else sums.sum(0).to(part.dtype)
        for sums, part in ((bias_sums, bias), (up_bias_sums, up_bias))
    )
    return x_gradient, bias_gradient, up_gradient, up_bias_gradient


class ActivationFunction(Function):
    """activation(x + bias), times up + up_bias where there is an up: `[rows, size]`, computed in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: Activation,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        up: torch.Tensor | None,
        up_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `Function`."""
        ctx.activation = activation
        ctx.save_for_backward(x, bias, up, up_bias)
        return launch_forward(activation, x, bias, up, up_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See `Function`."""
        return None, *launch_backward(ctx.activation, output_gradient, *ctx.saved_tensors)


def activate_biased(
    activation: Activation,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    up: torch.Tensor | None = None,
    up_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """activation(x + bias), times up + up_bias where there is an up.

    Args:
        activation: The activation.
        x: `[rows, size]`, at any stride.
        bias: `[size]`, or None.
        up: Like x, or None.
        up_bias: `[size]`, or None.

    Returns:
        `[rows, size]`.
    """
    output: torch.Tensor = ActivationFunction.apply(activation, x, bias, up, up_bias)
    return output
