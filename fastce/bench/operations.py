"""How many arithmetic operations scoring takes: the same count for every system."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastce.checkpoints.network import FAMILIES
from fastce.spec import EncoderSpec


def encoder_spec(config: Any) -> EncoderSpec | None:
    """The network that a Hugging Face config describes, or None where fastce does not know its family."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        return None
    try:
        return family.encoder(config)
    except ValueError:
        return None


def count_operations(spec: EncoderSpec, lengths: np.ndarray, num_labels: int = 1) -> int:
    """Counts the operations that scores can't do without; a multiply-add is two.

    With width h, intermediate width f, a heads and n tokens, a layer on all n rows takes, in multiply-adds,

        4 n h^2   for Q, K, V and the out-projection, [n, h] x [h, h] each
        2 n^2 h   for Q K^T and P V over all heads
        2 n h f   for the feed-forward network.

    The head reads the first token, so the last layer has one row of queries, q, and its keys and values need never be
    formed. Head j has the score q_j . (Wk_j x) = (Wk_j^T q_j) . x for a row x of the layer's input (the bias of K adds
    the same to every score and cancels in the softmax), and the context sum_x p_x (Wv_j x) = Wv_j (sum_x p_x x). So

        h^2 + h^2   for q and for Wk_j^T q_j over all heads
        2 a n h     for the scores and for sum_x p_x x, h wide in each head
        h^2 + h^2   for Wv_j and for the out-projection
        2 h f       for the feed-forward network of one row.

    The head adds h^2 and h for each label; embedding tables narrower than h add the projection of each row. Norms,
    softmax, activations and biases are not counted.

    Args:
        spec: The encoder.
        lengths: Tokens of each pair, special ones included, padding not; int64 `[num_pairs]`.
        num_labels: Logits of a pair.
    """
    hidden, width = spec.hidden_size, spec.intermediate_size
    pairs, tokens = len(lengths), int(lengths.sum())
    squares = int((lengths.astype(np.int64) ** 2).sum())
    one_row = 4 * hidden * hidden + 2 * hidden * width
    full_layer = tokens * one_row + 2 * squares * hidden
    last_layer = pairs * one_row + 2 * spec.num_heads * tokens * hidden
    projection = tokens * spec.embedding_size * hidden if spec.embedding_size != hidden else 0
    head = pairs * (hidden * hidden + hidden * num_labels)
    return 2 * (projection + (spec.num_layers - 1) * full_layer + last_layer + head)
