"""Autograd functions on the C++ kernels of training, and how these are called.

Dropout draws a seed from torch's generator; the kernels derive which elements they drop from that and the elements'
places, so nothing is kept for the backward pass.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from fastce import _core
from fastce.spec import Activation, Norm, RMSNorm

Dropout = tuple[int, float]
"""Seed and probability."""

NO_DROPOUT: Dropout = (0, 0.0)


def kernels() -> _core.Training:
    """The kernels, on torch's number of threads."""
    return kernels_on(torch.get_num_threads())


@cache
def kernels_on(num_threads: int) -> _core.Training:
    """The kernels, on threads of torch's OpenMP runtime where it has one."""
    return _core.Training(openmp_parallel(), num_threads)


@cache
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


@overload
def array(x: torch.Tensor) -> np.ndarray: ...
@overload
def array(x: torch.Tensor | None) -> np.ndarray | None: ...
def array(x: torch.Tensor | None) -> np.ndarray | None:
    """The tensor's memory for the kernels: bfloat16 as int16; None for None."""
    if x is None:
        return None
    x = x.detach()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def arrays(tables: Iterable[torch.Tensor | None]) -> Any:
    """Each tensor's memory, as a tuple."""
    return tuple(array(table) for table in tables)


def empty_like(x: torch.Tensor | None) -> torch.Tensor | None:
    """A contiguous tensor for a result of the shape and type of x; None for None."""
    return None if x is None else torch.empty_like(x, memory_format=torch.contiguous_format)


def name_of(norm: Norm) -> Literal["layer", "rms"]:
    """What the kernels call a norm."""
    return "rms" if isinstance(norm, RMSNorm) else "layer"


class NormFunction(Function):
    """dropout(norm(sum)) for sum = dropout(x + bias) + residual, and the sum as well where `keep_sum` says so.

    x is `[rows, size]` in fp32 or bf16, or None for 0; all else is fp32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor | None,
        bias: torch.Tensor | None,
        residual: torch.Tensor,
        weight: torch.Tensor,
        norm_bias: torch.Tensor | None,
        norm: Norm,
        input_dropout: Dropout,
        output_dropout: Dropout,
        keep_sum: bool,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """See `Function`."""
        residual = residual.contiguous()
        total = torch.empty_like(residual) if keep_sum else None
        normalized, output = torch.empty_like(residual), torch.empty_like(residual)
        inverse = residual.new_empty(len(residual))
        kernels().norm_forward(
            x=array(x),
            bias=array(bias),
            residual=array(residual),
            input_dropout=input_dropout,
            norm=name_of(norm),
            weight=array(weight),
            norm_bias=array(norm_bias),
            eps=norm.eps,
            output_dropout=output_dropout,
            total=array(total),
            normalized=array(normalized),
            inverse=array(inverse),
            output=array(output),
        )
        ctx.norm = name_of(norm)
        ctx.dropouts = input_dropout, output_dropout
        ctx.save_for_backward(normalized, inverse, weight, bias, norm_bias)
        ctx.x_dtype = None if x is None else x.dtype
        ctx.set_materialize_grads(False)
        return output if total is None else (total, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """See `Function`."""
        normalized, inverse, weight, bias, norm_bias = ctx.saved_tensors
        *total_gradient, output_gradient = (None if x is None else x.contiguous() for x in gradients)
        x_gradient = None if ctx.x_dtype is None else torch.empty_like(normalized, dtype=ctx.x_dtype)
        residual_gradient, weight_gradient = torch.empty_like(normalized), torch.empty_like(weight)
        input_dropout, output_dropout = ctx.dropouts
        bias_gradient, norm_bias_gradient = empty_like(bias), empty_like(norm_bias)
        kernels().norm_backward(
            output_gradient=array(torch.zeros_like(normalized) if output_gradient is None else output_gradient),
            total_gradient=array(total_gradient[0]) if total_gradient else None,
            normalized=array(normalized),
            inverse=array(inverse),
            input_dropout=input_dropout,
            norm=ctx.norm,
            weight=array(weight),
            output_dropout=output_dropout,
            x_gradient=array(x_gradient),
            bias_gradient=array(bias_gradient),
            residual_gradient=array(residual_gradient),
            weight_gradient=array(weight_gradient),
            norm_bias_gradient=array(norm_bias_gradient),
        )
        parameters = weight_gradient, norm_bias_gradient
        return x_gradient, bias_gradient, residual_gradient, *parameters, None, None, None, None


class ActivateFunction(Function):
    """activation(x + bias), times factor + factor_bias where there is a factor; x and factor alike in fp32 or bf16."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: Activation,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        factor: torch.Tensor | None,
        factor_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `Function`."""
        output = torch.empty_like(x, memory_format=torch.contiguous_format)
        kernels().activate_forward(
            activation=activation,
            x=array(x),
            bias=array(bias),
            factor=array(factor),
            factor_bias=array(factor_bias),
            output=array(output),
        )
        ctx.activation = activation
        ctx.save_for_backward(x, bias, factor, factor_bias)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See `Function`."""
        x, bias, factor, factor_bias = ctx.saved_tensors
        gradients = [empty_like(tensor) for tensor in (x, bias, factor, factor_bias)]
        x_gradient, bias_gradient, factor_gradient, factor_bias_gradient = map(array, gradients)
        assert x_gradient is not None
        kernels().activate_backward(
            activation=ctx.activation,
            x=array(x),
            bias=array(bias),
            factor=array(factor),
            factor_bias=array(factor_bias),
            output_gradient=array(output_gradient.contiguous()),
            x_gradient=x_gradient,
            bias_gradient=bias_gradient,
            factor_gradient=factor_gradient,
            factor_bias_gradient=factor_bias_gradient,
        )
        return None, *gradients


class AttentionFunction(Function):
    """Attention over `[rows, heads * head_dim]` in fp32 or bf16.

    The tables have a row for each distance from a query on to a key: a bias `[rows, heads]` in fp32, and what queries
    and what keys are multiplied with, `[rows, heads * head_dim]`; or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        attention: _core.VarlenAttention,
        heads: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *tables: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `Function`."""
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        softmax = torch.empty(len(query), heads, 2, dtype=torch.float32)
        kernels().attention_forward(
            attention,
            query=array(query),
            key=array(key),
            value=array(value),
            tables=arrays(tables),
            output=array(output),
            softmax=array(softmax),
        )
        ctx.attention = attention
        ctx.save_for_backward(query, key, value, softmax, *tables)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """See `Function`."""
        query, key, value, softmax, *tables = ctx.saved_tensors
        sums = [None if table is None else torch.zeros(table.shape) for table in tables]
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        query_gradient, key_gradient, value_gradient = map(array, gradients)
        kernels().attention_backward(
            ctx.attention,
            query=array(query),
            key=array(key),
            value=array(value),
            tables=arrays(tables),
            softmax=array(softmax),
            output_gradient=array(output_gradient.contiguous()),
            query_gradient=query_gradient,
            key_gradient=key_gradient,
            value_gradient=value_gradient,
            table_gradients=arrays(sums),
        )
        return None, None, *gradients, *sums


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
        """See `Function`."""
        output = torch.empty(len(ids[0]), tables[0].shape[1], dtype=torch.float32)
        kernels().embedding_forward(ids=ids, tables=[array(table) for table in tables], sums=array(output))
        ctx.lookups = [
            (rows, table) for rows, table, wanted in zip(ids, tables, ctx.needs_input_grad[1:], strict=True) if wanted
        ]
        ctx.num_inputs = 1 + len(tables)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: torch.Tensor) -> tuple[None, ...]:
        """See `Function`."""
        gradients = []
        for rows, table in ctx.lookups:
            if table.grad is None:
                table.grad = torch.zeros_like(table)
                SPARSE_GRADIENTS[table] = SparseGradient(table.grad.data_ptr(), [])
            if is_sparse(table):
                SPARSE_GRADIENTS[table].rows.append(rows)
            gradients.append(array(table.grad))
        kernels().embedding_backward(
            ids=[rows for rows, _ in ctx.lookups],
            table_gradients=gradients,
            gradient=array(output_gradient.contiguous()),
        )
        return (None,) * ctx.num_inputs


def is_sparse(table: torch.Tensor) -> bool:
    """Whether the rows of the table's gradient that are not zero are known."""
    known = SPARSE_GRADIENTS.get(table)
    return known is not None and table.grad is not None and known.address == table.grad.data_ptr()


def zero_gradients(parameters: Iterable[torch.nn.Parameter], *, for_good: bool) -> None:
    """See `fastce.backends.ops.Ops`. Until then tables keep theirs, filled with zeros."""
    for parameter in parameters:
        if parameter.grad is not None and is_sparse(parameter) and not for_good:
            rows = SPARSE_GRADIENTS[parameter].rows
            if rows:
                parameter.grad[torch.from_numpy(np.concatenate(rows))] = 0.0
            rows.clear()
        else:
            parameter.grad = None
            SPARSE_GRADIENTS.pop(parameter, None)
