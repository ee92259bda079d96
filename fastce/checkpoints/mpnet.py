"""MPNet (https://arxiv.org/abs/2004.09297): BERT with a bias by distance that all layers share."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, hidden_activation, normalized, post_norm_encoder
from fastce.checkpoints.relative import symmetric_buckets
from fastce.spec import (
    AbsolutePositions,
    Dense,
    Dropout,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    LayerNorm,
    RelativeBias,
)

BUCKETS, MAX_DISTANCE = 32, 128
"""What the model's code counts with, whatever its config says of the table."""

PADDING_ID = 1


def encoder(config: Any) -> EncoderSpec:
    """As BERT, positions counted as RoBERTa does, no token types."""
    sizes = normalized(config)
    if config.relative_attention_num_buckets < BUCKETS:
        raise ValueError(f"relative_attention_num_buckets is {config.relative_attention_num_buckets}, below {BUCKETS}")
    return post_norm_encoder(
        num_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        embeddings=Embeddings(
            vocab_size=config.vocab_size,
            size=sizes.hidden_size,
            norm=LayerNorm(config.layer_norm_eps),
            positions=AbsolutePositions(config.max_position_embeddings, PADDING_ID + 1, PADDING_ID),
            dropout=config.hidden_dropout_prob,
        ),
        heads=sizes.num_attention_heads,
        relation=RelativeBias(config.relative_attention_num_buckets, symmetric_buckets(BUCKETS, MAX_DISTANCE)),
        attention_dropout=config.attention_probs_dropout_prob,
        attention_output_dropout=config.hidden_dropout_prob,
        feed_forward=FeedForward(
            size=config.intermediate_size,
            activation=hidden_activation(config.hidden_act),
            output_dropout=config.hidden_dropout_prob,
        ),
        norm=LayerNorm(config.layer_norm_eps),
    )


def head(config: Any) -> HeadSpec:
    """Dropout, dense with tanh, dropout, out_proj."""
    dropout = Dropout(config.hidden_dropout_prob)
    return HeadSpec("first", (dropout, Dense(config.hidden_size, "tanh"), dropout, Dense(config.num_labels)))


LAYER = "encoder.layer.{}"
FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="mpnet",
    names={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.relative_attention_bias": "relative_bias",
        f"{LAYER}.attention.attn.q": "layers.{}.query",
        f"{LAYER}.attention.attn.k": "layers.{}.key",
        f"{LAYER}.attention.attn.v": "layers.{}.value",
        f"{LAYER}.attention.attn.o": "layers.{}.attention_output",
        f"{LAYER}.attention.LayerNorm": "layers.{}.attention_norm",
        f"{LAYER}.intermediate.dense": "layers.{}.up",
        f"{LAYER}.output.dense": "layers.{}.down",
        f"{LAYER}.output.LayerNorm": "layers.{}.feed_forward_norm",
    },
    head_names={"classifier.dense": "head.1", "classifier.out_proj": "head.3"},
    fresh=("classifier.",),
    unused=(
        "lm_head.",
        "qa_outputs.",
        "mpnet.pooler.",
        "pooler.",
        "mpnet.embeddings.position_ids",
        "embeddings.position_ids",
    ),
)
