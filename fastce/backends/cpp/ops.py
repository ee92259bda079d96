"""The ops of training on C++ kernels, forward and backward: the same functions as those of `fastce.backends.torch.ops`.

Matrix products are torch's. Dropout draws a seed from torch's generator; the kernels derive which elements they drop
from that and the elements' places, so nothing is kept for the backward pass.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from fastce import _core
from fastce.backends.torch.ops import Weight, activate, dropout, linear, product
from fastce.spec import Activation

__all__ = [
    "dropout",
    "embedding_layer_norm",
    "linear",
    "linear_activation",
    "linear_residual_layer_norm",
    "varlen_attention",
    "zero_gradients",
]

Dropout = tuple[int, float]
"""Seed and probability."""

NO_DROPOUT: Dropout = (0, 0.0)


@cache
def kernels() -> _core.Training:
    """The kernels, on the threads of torch's OpenMP runtime where it has one."""
    return _core.Training(openmp_parallel())


def openmp_parallel() -> int:
    """The address of `GOMP_parallel` in the OpenMP runtime that torch has loaded; 0 where there is none."""
    try:
        libraries = set(re.findall(r"\S*/lib(?:gomp|iomp5|omp)\S*\.so\S*", Path("/proc/self/maps").read_text()))
    except OSError:
        return 0
    torch_folder = str(Path(torch.__file__).parent)
    for library in sorted(libraries, key=lambda path: not path.startswith(torch_folder)):
        try:
            function = getattr(ctypes.CDLL(library), "GOMP_parallel", None)
        except OSError:  # its file is gone
            continue
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


def draw(probability: float) -> Dropout:
    """A dropout with a seed of its own from torch's generator."""
    return (int(torch.randint(2**63 - 1, ())), probability) if probability > 0.0 else NO_DROPOUT


def run(kernel: str, *arguments: Any) -> None:
    """Calls a kernel on torch's number of threads, with the memory of those arguments that are tensors."""
    arrays = (array(argument) if isinstance(argument, torch.Tensor) else argument for argument in arguments)
    getattr(kernels(), kernel)(*arrays, torch.get_num_threads())


def array(x: torch.Tensor) -> np.ndarray:
    """The tensor's memory for the kernels: bfloat16 as int16."""
    x = x.detach()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


class NormFunction(Function):
    """dropout(LayerNorm(dropout(x + bias) + residual)); x `[rows, size]` in fp32 or bf16, or None for 0."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor | None,
        bias: torch.Tensor | None,
        residual: torch.Tensor,
        weight: torch.Tensor,
        norm_bias: torch.Tensor,
        eps: float,
        input_dropout: Dropout,
        output_dropout: Dropout,
    ) -> torch.Tensor:
        residual = residual.contiguous()
        normalized, output = torch.empty_like(residual), torch.empty_like(residual)
        inverse = residual.new_empty(len(residual))
        dropouts = input_dropout, output_dropout
        run("norm_forward", x, bias, residual, weight, norm_bias, eps, *dropouts, normalized, inverse, output)
        ctx.save_for_backward(normalized, inverse, weight)
        ctx.dropouts = dropouts
        ctx.x_dtype = None if x is None else x.dtype
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        normalized, inverse, weight = ctx.saved_tensors
        residual_gradient = torch.empty_like(normalized)
        weight_gradient, norm_bias_gradient = torch.empty_like(weight), torch.empty_like(weight)
        x_gradient = bias_gradient = None
        if ctx.x_dtype is not None:
            x_gradient, bias_gradient = torch.empty_like(normalized, dtype=ctx.x_dtype), torch.empty_like(weight)
        gradients = residual_gradient, x_gradient, weight_gradient, norm_bias_gradient, bias_gradient
        run("norm_backward", output_gradient.contiguous(), normalized, inverse, weight, *ctx.dropouts, *gradients)
        return x_gradient, bias_gradient, residual_gradient, weight_gradient, norm_bias_gradient, None, None, None


class GeluFunction(Function):
    """GELU(x + bias) for x `[rows, size]` in fp32 or bf16, in the dtype of x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(x)
        run("gelu_forward", x, bias, output)
        ctx.save_for_backward(x, bias)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, bias = ctx.saved_tensors
        x_gradient, bias_gradient = torch.empty_like(x), torch.empty_like(bias)
        run("gelu_backward", x, bias, output_gradient.contiguous(), x_gradient, bias_gradient)
        return x_gradient, bias_gradient


class AttentionFunction(Function):
    """Attention over `[rows, num_heads * head_dim]` in fp32 or bf16; see `varlen_attention`."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        num_heads: int,
        cu_queries: np.ndarray,
        cu_keys: np.ndarray,
        dropout: Dropout,
    ) -> torch.Tensor:
        output = torch.empty_like(query)
        softmax = torch.empty(len(query) * num_heads, 2, dtype=torch.float32)
        scale = 1.0 / math.sqrt(query.shape[1] // num_heads)
        ctx.num_heads = num_heads
        ctx.options = cu_queries, cu_keys, scale, dropout
        run("attention_forward", num_heads, query, key, value, *ctx.options, output, softmax)
        ctx.save_for_backward(query, key, value, output, softmax)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, softmax = ctx.saved_tensors
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        inputs = query, key, value, *ctx.options, output, softmax
        run("attention_backward", ctx.num_heads, *inputs, output_gradient.contiguous(), *gradients)
        return *gradients, None, None, None, None


class SparseGradient(NamedTuple):
    """Says of a table's gradient, known by its address, in which rows it is not zero."""

    address: int
    rows: list[np.ndarray]


SPARSE_GRADIENTS = WeakTensorKeyDictionary()
"""Embedding tables to their `SparseGradient`; one with another address tells of a gradient that is gone."""


class EmbeddingFunction(Function):
    """The sum of each token's rows, `[total_tokens, embedding_size]`, of fp32 tables.

    The backward pass adds to the tables' `grad` itself, for only a few of many thousand rows change; `zero_gradients`
    clears those again.
    """

    @staticmethod
    def forward(ctx: Any, ids: Sequence[np.ndarray], *tables: torch.Tensor) -> torch.Tensor:
        output = torch.empty(len(ids[0]), tables[0].shape[1], dtype=torch.float32)
        run("embedding_forward", ids, [array(table) for table in tables], output)
        ctx.lookups = [
            (rows, table) for rows, table, wanted in zip(ids, tables, ctx.needs_input_grad[1:], strict=True) if wanted
        ]
        ctx.num_inputs = 1 + len(tables)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[None, ...]:
        gradients = []
        for rows, table in ctx.lookups:
            if table.grad is None:
                table.grad = torch.zeros_like(table)
                SPARSE_GRADIENTS[table] = SparseGradient(table.grad.data_ptr(), [])
            if is_sparse(table):
                SPARSE_GRADIENTS[table].rows.append(rows)
            gradients.append(array(table.grad))
        run("embedding_backward", [rows for rows, _ in ctx.lookups], gradients, output_gradient.contiguous())
        return (None,) * ctx.num_inputs


def is_sparse(table: torch.Tensor) -> bool:
    """Whether the rows of the table's gradient that are not zero are known."""
    known = SPARSE_GRADIENTS.get(table)
    return known is not None and table.grad is not None and known.address == table.grad.data_ptr()


def zero_gradients(parameters: Iterable[torch.nn.Parameter], *, for_good: bool) -> None:
    """See `fastce.backends.torch.ops.zero_gradients`. Until then tables keep theirs, filled with zeros."""
    for parameter in parameters:
        if parameter.grad is not None and is_sparse(parameter) and not for_good:
            rows = SPARSE_GRADIENTS[parameter].rows
            if rows:
                parameter.grad[torch.from_numpy(np.concatenate(rows))] = 0.0
            rows.clear()
        else:
            parameter.grad = None
            SPARSE_GRADIENTS.pop(parameter, None)


def linear_activation(x: torch.Tensor, weight: Weight, bias: torch.Tensor, activation: Activation) -> torch.Tensor:
    """See `fastce.backends.torch.ops.linear_activation`."""
    if activation != "gelu":
        return activate(linear(x, weight, bias), activation)
    output: torch.Tensor = GeluFunction.apply(product(x, weight), bias)
    return output


def linear_residual_layer_norm(
    x: torch.Tensor,
    weight: Weight,
    bias: torch.Tensor,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    eps: float,
    dropout_probability: float = 0.0,
) -> torch.Tensor:
    """See `fastce.backends.torch.ops.linear_residual_layer_norm`."""
    output: torch.Tensor = NormFunction.apply(
        product(x, weight), bias, residual, norm_weight, norm_bias, eps, draw(dropout_probability), NO_DROPOUT
    )
    return output


def embedding_layer_norm(
    ids_and_tables: Sequence[tuple[torch.Tensor, torch.Tensor]],
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    dropout_probability: float = 0.0,
) -> torch.Tensor:
    """See `fastce.backends.torch.ops.embedding_layer_norm`."""
    summed = EmbeddingFunction.apply(
        [ids.numpy() for ids, _ in ids_and_tables], *(table for _, table in ids_and_tables)
    )
    output: torch.Tensor = NormFunction.apply(
        None, None, summed, weight, bias, eps, NO_DROPOUT, draw(dropout_probability)
    )
    return output


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    dropout: float = 0.0,
) -> torch.Tensor:
    """See `fastce.backends.torch.ops.varlen_attention`."""
    output: torch.Tensor = AttentionFunction.apply(
        query.flatten(1),
        key.flatten(1),
        value.flatten(1),
        query.shape[1],
        cumulative(query_lengths),
        cumulative(key_lengths),
        draw(dropout),
    )
    return output.view(query.shape)


def cumulative(lengths: Sequence[int]) -> np.ndarray:
    """Lengths to int32 `cu_seqlens`, `[len(lengths) + 1]`."""
    return np.cumsum([0, *lengths], dtype=np.int32)
