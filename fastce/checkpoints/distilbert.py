"""DistilBERT (https://arxiv.org/abs/1910.01108): no token types, names of its own."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, hidden_activation, normalized, post_norm_encoder, reject_unsupported
from fastce.spec import AbsolutePositions, Dense, Dropout, Embeddings, EncoderSpec, FeedForward, HeadSpec, LayerNorm

LAYER = "transformer.layer.{}"
NORM = LayerNorm(1e-12)
"""Its epsilon is fixed in the module, not in the config."""


def encoder(config: Any) -> EncoderSpec:
    """Nothing is dropped behind the attention."""
    reject_unsupported(config)
    sizes = normalized(config)
    return post_norm_encoder(
        num_layers=config.n_layers,
        hidden_size=sizes.hidden_size,
        embeddings=Embeddings(
            vocab_size=sizes.vocab_size,
            size=sizes.hidden_size,
            norm=NORM,
            positions=AbsolutePositions(config.max_position_embeddings),
            dropout=config.dropout,
        ),
        heads=sizes.num_attention_heads,
        attention_dropout=config.attention_dropout,
        attention_output_dropout=0.0,
        feed_forward=FeedForward(
            size=config.hidden_dim, activation=hidden_activation(config.activation), output_dropout=config.dropout
        ),
        norm=NORM,
    )


def head(config: Any) -> HeadSpec:
    """pre_classifier with ReLU, dropout, classifier."""
    return HeadSpec("first", (Dense(config.dim, "relu"), Dropout(config.seq_classif_dropout), Dense(config.num_labels)))


FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="distilbert",
    names={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.LayerNorm": "embeddings.norm",
        f"{LAYER}.attention.q_lin": "layers.{}.query",
        f"{LAYER}.attention.k_lin": "layers.{}.key",
        f"{LAYER}.attention.v_lin": "layers.{}.value",
        f"{LAYER}.attention.out_lin": "layers.{}.attention_output",
        f"{LAYER}.sa_layer_norm": "layers.{}.attention_norm",
        f"{LAYER}.ffn.lin1": "layers.{}.up",
        f"{LAYER}.ffn.lin2": "layers.{}.down",
        f"{LAYER}.output_layer_norm": "layers.{}.feed_forward_norm",
    },
    head_names={"pre_classifier": "head.0", "classifier": "head.2"},
    fresh=("pre_classifier.", "classifier."),
    unused=("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."),
)
