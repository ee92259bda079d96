from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from transformers import BertConfig, ElectraConfig, ErnieConfig

from fastce.bench.operations import count_operations, program_of
from fastce.spec import (
    Attention,
    Dense,
    DisentangledAttention,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    Layer,
    LayerNorm,
    PostNorm,
)
from fastce.steps import program

SIZES = {"hidden_size": 6, "num_attention_heads": 3, "intermediate_size": 10, "num_hidden_layers": 3}


def product(rows: int, depth: int, columns: int) -> int:
    return 2 * rows * depth * columns


def counted_by_hand(tokens: int, labels: int, embedding: int | None = None) -> int:
    """Every product of one pair, one after the other, on the sizes above."""
    total = 0 if embedding is None else product(tokens, embedding, 6)
    for _ in range(2):
        total += 3 * product(tokens, 6, 6)  # Q, K, V
        for _ in range(3):
            total += product(tokens, 2, tokens)  # scores of a head
            total += product(tokens, tokens, 2)  # its context
        total += product(tokens, 6, 6)  # out-projection
        total += product(tokens, 6, 10) + product(tokens, 10, 6)
    total += product(1, 6, 6)  # q of the first token
    for _ in range(3):
        total += product(1, 2, 6)  # Wk^T q
        total += product(1, 6, tokens) + product(1, tokens, 6)  # scores, sum of p x
        total += product(1, 6, 2)  # Wv of the sum
    total += product(1, 6, 6)
    total += product(1, 6, 10) + product(1, 10, 6)
    return total + product(1, 6, 6) + product(1, 6, labels)


@pytest.mark.parametrize("labels", [1, 3])
def test_count_equals_a_count_by_hand(labels: int) -> None:
    network = program_of(BertConfig(**SIZES, num_labels=labels))
    assert network is not None
    expected = sum(counted_by_hand(tokens, labels) for tokens in (1, 4, 9))
    assert count_operations(network, np.array([1, 4, 9])) == expected


def test_narrow_embeddings_are_projected() -> None:
    network = program_of(ElectraConfig(**SIZES, embedding_size=5, num_labels=1))
    assert network is not None
    assert count_operations(network, np.array([7])) == counted_by_hand(7, 1, embedding=5)


def test_contents_meet_the_positions_in_their_reach() -> None:
    rows = (0, 1, 1, 2, 3, 4, 4)  # of distances -3 to 3
    relation = DisentangledAttention(3, rows, True, True, True, None)
    encoder, head = (
        EncoderSpec(
            hidden_size=6,
            max_length=10,
            embeddings=Embeddings(10, 6, None),
            layers=(Layer(Attention(3, 2), FeedForward(10, "gelu")),) * 3,
            placement=PostNorm(LayerNorm(1e-5)),
        ),
        HeadSpec("first", (Dense(6), Dense(1))),
    )
    other = replace(
        encoder, layers=tuple(replace(x, attention=replace(x.attention, relation=relation)) for x in encoder.layers)
    )
    plain = count_operations(program(encoder, head), np.array([5]))
    # Queries 0 to 4 reach distances 0 to 4, -1 to 3, ..., -4 to 0: rows 2 3 4, 1 2 3 4, 1 2 3 4, 0 1 2 3, 0 1 2.
    met = 2 * product(3 + 4 + 4 + 4 + 3, 2, 3)
    folded = 3 * product(1, 2, 6) + 3 * product(1, 6, 5)
    pooled = product(5, 6, 6) + 3 * 3 * product(1, 2, 5)
    assert count_operations(program(other, head), np.array([5])) == plain + 2 * met - folded + pooled


def test_large_counts_do_not_overflow() -> None:
    network = program_of(BertConfig())
    assert network is not None
    lengths = np.full(1_000_000, 512, dtype=np.int32)
    assert count_operations(network, lengths) == 1_000_000 * count_operations(network, lengths[:1])


def test_unknown_networks_have_no_count() -> None:
    assert program_of(ErnieConfig()) is None
    assert program_of(BertConfig(hidden_act="mish")) is None
