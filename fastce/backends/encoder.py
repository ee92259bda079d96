"""The layer loop over packed tokens, once for every backend that works op by op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from fastce.packing import PackedBatch
from fastce.spec import EncoderSpec, HeadSpec

Weights = Mapping[str, Any]
"""Our parameter names to tensors, or to what else the ops take for a matrix."""


def encoder_logits(
    ops: Any,
    encoder: EncoderSpec,
    head: HeadSpec,
    weights: Weights,
    batch: PackedBatch,
    *,
    training: bool,
    recompute: bool = False,
) -> torch.Tensor:
    """Runs the whole network on a packed batch.

    The head reads each sequence's first token, so the last layer computes that row alone; its keys and values still
    come from every token.

    Args:
        ops: The functions to compute with: `fastce.backends.torch.ops` or a module with the same ones.
        encoder: The encoder.
        head: The head.
        weights: The parameters.
        batch: The sequences.
        training: Whether dropout applies.
        recompute: Whether the backward pass computes each layer again instead of keeping its activations.

    Returns:
        Logits, `[num_pairs, num_labels]`.
    """
    run_layer: Callable[..., torch.Tensor] = (
        partial(checkpoint, transformer_layer, use_reentrant=False) if recompute else transformer_layer
    )
    hidden = embed(ops, encoder, weights, batch, training)  # [total_tokens, hidden_size]
    lengths = batch.lengths
    for layer in range(encoder.num_layers - 1):
        hidden = run_layer(ops, encoder, weights, f"layers.{layer}", hidden, hidden, lengths, lengths, training)
    first = hidden[batch.cu_seqlens[:-1]]  # [num_pairs, hidden_size]
    last = f"layers.{encoder.num_layers - 1}"
    first = run_layer(ops, encoder, weights, last, first, hidden, [1] * len(lengths), lengths, training)
    return classify(ops, head, weights, first, training)


def embed(ops: Any, encoder: EncoderSpec, weights: Weights, batch: PackedBatch, training: bool) -> torch.Tensor:
    """Word, token-type and position embeddings, LayerNorm, dropout and, where there is one, the projection."""
    tables = [(batch.input_ids, weights["embeddings.word.weight"])]
    if encoder.token_types:
        tables.append((batch.token_type_ids, weights["embeddings.token_type.weight"]))
    tables.append((batch.position_ids, weights["embeddings.position.weight"]))
    hidden = ops.embedding_layer_norm(
        tables,
        *parameters(weights, "embeddings.norm"),
        encoder.layer_norm_eps,
        encoder.hidden_dropout if training else 0.0,
    )
    if encoder.embedding_size != encoder.hidden_size:
        hidden = ops.linear(hidden, *parameters(weights, "embeddings.projection")).to(hidden.dtype)
    return hidden


def transformer_layer(
    ops: Any,
    encoder: EncoderSpec,
    weights: Weights,
    name: str,
    rows: torch.Tensor,
    hidden: torch.Tensor,
    row_lengths: list[int],
    lengths: list[int],
    training: bool,
) -> torch.Tensor:
    """One layer, for some of the rows.

    Args:
        ops: The functions to compute with.
        encoder: The encoder.
        weights: The parameters.
        name: Prefix of the layer's weights.
        rows: What the layer is computed for, `[total_rows, hidden_size]`; `hidden` itself or rows of it.
        hidden: What it attends to, `[total_tokens, hidden_size]`.
        row_lengths: Rows of each sequence.
        lengths: Tokens of each sequence.
        training: Whether dropout applies.

    Returns:
        `[total_rows, hidden_size]`.
    """

    def dense(x: torch.Tensor, part: str) -> torch.Tensor:
        return ops.linear(x, *parameters(weights, f"{name}.{part}"))

    def dense_and_norm(x: torch.Tensor, residual: torch.Tensor, part: str, norm: str) -> torch.Tensor:
        return ops.linear_residual_layer_norm(
            x,
            *parameters(weights, f"{name}.{part}"),
            residual,
            *parameters(weights, f"{name}.{norm}"),
            encoder.layer_norm_eps,
            encoder.hidden_dropout if training else 0.0,
        )

    heads = (encoder.num_heads, encoder.head_dim)
    context = ops.varlen_attention(
        dense(rows, "query").unflatten(-1, heads),
        dense(hidden, "key").unflatten(-1, heads),
        dense(hidden, "value").unflatten(-1, heads),
        row_lengths,
        lengths,
        encoder.attention_dropout if training else 0.0,
    )
    rows = dense_and_norm(context.flatten(1), rows, "attention_output", "attention_norm")
    inner = ops.linear_activation(rows, *parameters(weights, f"{name}.intermediate"), encoder.activation)
    return dense_and_norm(inner, rows, "output", "output_norm")


def classify(ops: Any, head: HeadSpec, weights: Weights, first: torch.Tensor, training: bool) -> torch.Tensor:
    """The classification head on first tokens `[num_pairs, hidden_size]`."""
    x = ops.dropout(first, head.input_dropout, training)
    x = ops.linear_activation(x, *parameters(weights, "head.dense"), head.activation)
    x = ops.dropout(x, head.dropout, training)
    return ops.linear(x, *parameters(weights, "head.output"))


def parameters(weights: Weights, name: str) -> tuple[Any, torch.Tensor]:
    """Weight and bias of a module."""
    return weights[f"{name}.weight"], weights[f"{name}.bias"]
