"""ALBERT (https://arxiv.org/abs/1909.11942): one layer again and again, and embeddings narrower than it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastce.checkpoints.family import Family, bert_encoder, reject_others
from fastce.spec import Dense, Dropout, EncoderSpec, HeadSpec


def encoder(config: Any) -> EncoderSpec:
    """As BERT, with narrow embeddings and the first layer's weights everywhere."""
    reject_others(vars(config), {"num_hidden_groups": 1, "inner_group_num": 1})
    if config.embedding_size == config.hidden_size:
        raise ValueError(f"embedding_size is the hidden_size, {config.hidden_size}; only others are described")
    spec = bert_encoder(config, embedding_size=config.embedding_size)
    layers = tuple(
        replace(layer, stored=0, feed_forward=replace(layer.feed_forward, output_dropout=0.0)) for layer in spec.layers
    )
    return replace(spec, layers=layers)


def head(config: Any) -> HeadSpec:
    """The pooler (dense with tanh), dropout, classifier."""
    dropout = Dropout(config.classifier_dropout_prob)
    return HeadSpec("first", (Dense(config.hidden_size, "tanh"), dropout, Dense(config.num_labels)))


LAYER = "encoder.albert_layer_groups.0.albert_layers.0"
FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="albert",
    names={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.embedding_hidden_mapping_in": "embeddings.projection",
        f"{LAYER}.attention.query": "layers.0.query",
        f"{LAYER}.attention.key": "layers.0.key",
        f"{LAYER}.attention.value": "layers.0.value",
        f"{LAYER}.attention.dense": "layers.0.attention_output",
        f"{LAYER}.attention.LayerNorm": "layers.0.attention_norm",
        f"{LAYER}.ffn": "layers.0.up",
        f"{LAYER}.ffn_output": "layers.0.down",
        f"{LAYER}.full_layer_layer_norm": "layers.0.feed_forward_norm",
    },
    head_names={"albert.pooler": "head.0", "classifier": "head.2"},
    fresh=("albert.pooler.", "classifier."),
    unused=(
        "predictions.",
        "sop_classifier.",
        "qa_outputs.",
        "albert.embeddings.position_ids",
        "embeddings.position_ids",
    ),
)
