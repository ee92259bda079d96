"""DistilBERT (https://arxiv.org/abs/1910.01108): no token types, names of its own."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, hidden_activation, normalized, reject_unsupported
from fastce.spec import EncoderSpec, HeadSpec, PositionScheme

LAYER = "distilbert.transformer.layer.{}"


def encoder(config: Any) -> EncoderSpec:
    """LayerNorm's epsilon is fixed in the module, not in the config."""
    reject_unsupported(config)
    sizes = normalized(config)
    return EncoderSpec(
        num_layers=config.n_layers,
        num_heads=sizes.num_attention_heads,
        hidden_size=sizes.hidden_size,
        intermediate_size=config.hidden_dim,
        embedding_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        max_positions=config.max_position_embeddings,
        token_types=0,
        activation=hidden_activation(config.activation),
        layer_norm_eps=1e-12,
        positions=PositionScheme(),
        hidden_dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )


def head(config: Any) -> HeadSpec:
    """pre_classifier with ReLU, dropout, classifier."""
    return HeadSpec(
        num_labels=config.num_labels, activation="relu", input_dropout=0.0, dropout=config.seq_classif_dropout
    )


FAMILY = Family(
    encoder=encoder,
    head=head,
    names={
        "embeddings.word": "distilbert.embeddings.word_embeddings",
        "embeddings.position": "distilbert.embeddings.position_embeddings",
        "embeddings.norm": "distilbert.embeddings.LayerNorm",
        "layers.{}.query": f"{LAYER}.attention.q_lin",
        "layers.{}.key": f"{LAYER}.attention.k_lin",
        "layers.{}.value": f"{LAYER}.attention.v_lin",
        "layers.{}.attention_output": f"{LAYER}.attention.out_lin",
        "layers.{}.attention_norm": f"{LAYER}.sa_layer_norm",
        "layers.{}.intermediate": f"{LAYER}.ffn.lin1",
        "layers.{}.output": f"{LAYER}.ffn.lin2",
        "layers.{}.output_norm": f"{LAYER}.output_layer_norm",
        "head.dense": "pre_classifier",
        "head.output": "classifier",
    },
    fresh=("pre_classifier.", "classifier."),
    unused=("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."),
)
