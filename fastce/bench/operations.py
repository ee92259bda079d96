"""How many arithmetic operations scoring takes: the same count for every system, derived from the network's steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastce.checkpoints.network import family_of
from fastce.spec import Attention, Dense, DisentangledAttention, FeedForward, HeadSpec, RotaryEmbedding
from fastce.steps import Attend, Program, kv_heads, program, score_terms


def program_of(config: Any) -> Program | None:
    """The network that a Hugging Face config describes, or None where fastce does not know it."""
    try:
        family = family_of(config)
        return program(family.encoder(config), family.head(config))
    except ValueError:
        return None


def count_operations(network: Program, lengths: np.ndarray) -> int:
    """Counts the operations that scores can't do without; a multiply-add is two.

    Norms, softmax, activations, rotations and biases are not counted; see the functions below for what is.

    Args:
        network: The network.
        lengths: Tokens of each pair, special ones included, padding not; int64 `[num_pairs]`.
    """
    lengths = lengths.astype(np.int64)
    hidden, pairs, tokens = network.hidden_size, len(lengths), int(lengths.sum())
    total = head_products(network.head, hidden) * pairs
    if network.embeddings.size != hidden:
        total += tokens * network.embeddings.size * hidden
    rows = tokens
    for step in network.steps:
        if isinstance(step, Attend) and step.pooled:
            rows = pairs  # from here on
            total += pooled_attention(step.attention, hidden, lengths, last=network.head.pooling == "last")
        elif isinstance(step, Attend):
            total += attention(step.attention, hidden, lengths)
        else:
            total += rows * feed_forward(step.feed_forward, hidden)
    return 2 * total


def attention(part: Attention, hidden: int, lengths: np.ndarray) -> int:
    """Multiply-adds of attention on every row.

    Q and the out-projection are as wide as all heads, a; K and V as the heads of keys and values, k. With n tokens, of
    which each sees some, s in all:

        2 n h a + 2 n h k   for the projections, [n, h] x [h, a] and [n, h] x [h, k]
        2 s a               for Q K^T and P V over all heads
        r a                 for each term of disentangled attention: a content meets the r relative positions in its
                            reach; tables of positions are made of weights alone, beforehand.
    """
    wide, narrow = part.heads * part.head_dim, kv_heads(part) * part.head_dim
    products = 2 * int(visible(part, lengths).sum())
    if isinstance(part.relation, DisentangledAttention):
        products += (score_terms(part) - 1) * positions_met(part.relation, lengths)
    return int(lengths.sum()) * 2 * hidden * (wide + narrow) + products * wide


def pooled_attention(part: Attention, hidden: int, lengths: np.ndarray, *, last: bool) -> int:
    """Multiply-adds of attention with one row of queries a pair.

    Head j has the score q_j . (Wk_j x) = (Wk_j^T q_j) . x for a row x of the input (the bias of K adds the same to
    every score and cancels in the softmax), and the context sum_x p_x (Wv_j x) = Wv_j (sum_x p_x x): keys and values
    need never be formed. With m visible rows:

        2 h a + 2 h k + 2 a' m h   for Q and out-projection, both moved projections, and both sums over m, a' heads

    Where positions rotate or meet queries and keys, or keys have a norm, K is formed of each visible row, h k, and the
    scores are a wide, for each term.
    """
    wide, narrow = part.heads * part.head_dim, kv_heads(part) * part.head_dim
    pairs, seen = len(lengths), int(visible_to_one(part, lengths, last=last).sum())
    values = pairs * hidden * narrow + part.heads * seen * hidden
    keys = values
    if isinstance(part.relation, RotaryEmbedding | DisentangledAttention) or part.qk_norm is not None:
        keys = seen * (hidden * narrow + wide)
        keys += seen * wide * (score_terms(part) - 1)
    return pairs * 2 * hidden * wide + keys + values


def positions_met(relation: DisentangledAttention, lengths: np.ndarray) -> int:
    """How many rows of the table of relative positions each token's reach has, over all tokens."""
    reach = len(relation.rows) // 2
    changes = np.concatenate([[0], np.diff(relation.rows) != 0]).cumsum()  # rows before a distance, from -reach on
    total = 0
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        first, last = np.clip([-np.arange(length), np.arange(length)[::-1]], -reach, reach) + reach
        total += int(count) * int((changes[last] - changes[first] + 1).sum())
    return total


def visible(part: Attention, lengths: np.ndarray) -> np.ndarray:
    """Pairs of a query and a key that it sees, `[num_pairs]`."""
    reach = lengths - 1 if part.window is None else np.minimum(part.window, lengths - 1)
    before = lengths * reach - reach * (reach + 1) // 2  # keys before their query
    return lengths + before * (1 if part.causal else 2)


def visible_to_one(part: Attention, lengths: np.ndarray, *, last: bool) -> np.ndarray:
    """Keys that the first or last token sees, `[num_pairs]`."""
    if part.causal and not last:
        return np.ones_like(lengths)
    return lengths if part.window is None else np.minimum(lengths, part.window + 1)


def feed_forward(part: FeedForward, hidden: int) -> int:
    """Multiply-adds of a feed-forward network on one row: two matrices, or three with a gate."""
    return (3 if part.gated else 2) * hidden * part.size


def head_products(head: HeadSpec, hidden: int) -> int:
    """Multiply-adds of the head's chain on one row."""
    total, width = 0, hidden
    for step in head.steps:
        if isinstance(step, Dense):
            total, width = total + width * step.size, step.size
    return total
