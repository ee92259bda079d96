"""The mathematics, once, in plain PyTorch: what every kernel is tested against and what runs anywhere.

All of it is differentiable and follows the dtype of its inputs, float64 included. Tokens lie end to end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from fastce.checkpoints.adapters import LowRankUpdate
from fastce.spec import Activation


class AdaptedWeight(NamedTuple):
    """A matrix `[out_features, in_features]` and what LoRA adds to it."""

    base: torch.Tensor
    updates: Sequence[LowRankUpdate]

    @property
    def dtype(self) -> torch.dtype:
        """That of the matrix."""
        return self.base.dtype


Weight: TypeAlias = torch.Tensor | AdaptedWeight


def embedding_sum(ids_and_tables: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Sums rows of several tables.

    Args:
        ids_and_tables: Pairs of int32 ids `[total_tokens]` and a table `[rows, embedding_size]`.

    Returns:
        `[total_tokens, embedding_size]`.
    """
    first, *others = (F.embedding(ids, table) for ids, table in ids_and_tables)
    return sum(others, start=first)


def product(x: torch.Tensor, weight: Weight, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x @ weight.T + bias`; the matrices of LoRA are multiplied one after the other, never with each other.

    Args:
        x: `[rows, in_features]`, in the dtype of the weight.
        weight: `[out_features, in_features]`.
        bias: `[out_features]`.

    Returns:
        `[rows, out_features]` in the dtype of the weight (or of autocast).
    """
    if isinstance(weight, torch.Tensor):
        return F.linear(x, weight, bias)
    result = F.linear(x, weight.base, bias)
    for update in weight.updates:
        inner = F.linear(update.dropout(x), update.down)  # [rows, rank]
        result = torch.addmm(result, inner, update.up.t(), alpha=update.scaling)
    return result


def linear(x: torch.Tensor, weight: Weight, bias: torch.Tensor) -> torch.Tensor:
    """`x @ weight.T + bias`, computed in the dtype of the weight.

    Args:
        x: `[rows, in_features]`.
        weight: `[out_features, in_features]`.
        bias: `[out_features]`.

    Returns:
        `[rows, out_features]` in the dtype of the weight (or of autocast).
    """
    return product(x.to(weight.dtype), weight, bias)


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Applies an activation elementwise; `gelu` is the exact one with erf (https://arxiv.org/abs/1606.08415)."""
    return ACTIVATIONS[activation](x)


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
}


def linear_activation(x: torch.Tensor, weight: Weight, bias: torch.Tensor, activation: Activation) -> torch.Tensor:
    """`activate` of `linear`, `[rows, out_features]`."""
    return activate(linear(x, weight, bias), activation)


def residual_layer_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """LayerNorm(x + residual) over the last dimension (https://arxiv.org/abs/1607.06450), in the dtype of `residual`.

    Args:
        x: `[rows, size]`.
        residual: `[rows, size]`.
        weight: `[size]`.
        bias: `[size]`.
        eps: Added to the variance.

    Returns:
        `[rows, size]`.
    """
    return F.layer_norm(x.to(residual.dtype) + residual, weight.shape, weight, bias, eps)


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
    """`residual_layer_norm` of `linear`, dropped out, and `residual`, `[rows, out_features]`."""
    x = F.dropout(linear(x, weight, bias), dropout_probability)
    return residual_layer_norm(x, residual, norm_weight, norm_bias, eps)


def embedding_layer_norm(
    ids_and_tables: Sequence[tuple[torch.Tensor, torch.Tensor]],
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    dropout_probability: float = 0.0,
) -> torch.Tensor:
    """LayerNorm of `embedding_sum`, dropped out, `[total_tokens, embedding_size]`."""
    x = F.layer_norm(embedding_sum(ids_and_tables), weight.shape, weight, bias, eps)
    return F.dropout(x, dropout_probability)


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    dropout: float = 0.0,
) -> torch.Tensor:
    """softmax(q k^T / sqrt(head_dim)) v within each sequence (https://arxiv.org/abs/1706.03762, equation 1).

    Neighbours of equal length are computed together, so batches in length order need few calls.

    Args:
        query: `[total_queries, num_heads, head_dim]`.
        key: `[total_keys, num_heads, head_dim]`.
        value: `[total_keys, num_heads, head_dim]`.
        query_lengths: Queries of each sequence.
        key_lengths: Keys of each sequence.
        dropout: Probability of dropping an attention weight.

    Returns:
        `[total_queries, num_heads, head_dim]`.
    """
    scale = 1.0 / math.sqrt(query.shape[-1])
    outputs = []
    query_start = key_start = 0
    for (query_length, key_length), run in groupby(zip(query_lengths, key_lengths, strict=True)):
        count = sum(1 for _ in run)
        query_end = query_start + count * query_length
        key_end = key_start + count * key_length
        q = (
            query[query_start:query_end].unflatten(0, (count, query_length)).transpose(1, 2)
        )  # [count, heads, length, dim]
        k = key[key_start:key_end].unflatten(0, (count, key_length)).transpose(1, 2)
        v = value[key_start:key_end].unflatten(0, (count, key_length)).transpose(1, 2)
        context = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
        outputs.append(context.transpose(1, 2).flatten(0, 1))
        query_start, key_start = query_end, key_end
    return torch.cat(outputs)


def dropout(x: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Zeroes elements with `probability` and scales the others up, in training only."""
    return F.dropout(x, probability, training)


def zero_gradients(parameters: Iterable[torch.nn.Parameter], *, for_good: bool) -> None:
    """Forgets the gradients of parameters.

    Args:
        parameters: The parameters.
        for_good: Whether no further step follows.
    """
    for parameter in parameters:
        parameter.grad = None
