"""ModernBERT (https://arxiv.org/abs/2412.13663): pre-norm, rotary embeddings, local and global layers, gated layers."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, hidden_activation
from fastce.checkpoints.rotary import rotary_embedding
from fastce.spec import (
    Attention,
    Dense,
    Dropout,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    Layer,
    LayerNorm,
    Normalize,
    Pooling,
    PreNorm,
)

POOLINGS: dict[str, Pooling] = {"cls": "first", "mean": "mean"}


def norm(config: Any) -> LayerNorm:
    """All norms are alike."""
    return LayerNorm(config.norm_eps, bias=config.norm_bias)


def encoder(config: Any) -> EncoderSpec:
    """Each layer says whether it is local; local and global ones have frequencies of their own."""
    head_dim, rest = divmod(config.hidden_size, max(config.num_attention_heads, 1))
    if rest != 0 or config.num_attention_heads < 1:
        raise ValueError(f"hidden_size {config.hidden_size} is no multiple of {config.num_attention_heads} heads")
    windows = {"sliding_attention": config.sliding_window, "full_attention": None}
    relations = {kind: rotary_embedding(config, head_dim, kind) for kind in sorted(set(config.layer_types))}
    feed_forward = FeedForward(
        size=config.intermediate_size,
        activation=hidden_activation(config.hidden_activation),
        gated=True,
        bias=config.mlp_bias,
        output_bias=config.mlp_bias,
        dropout=config.mlp_dropout,
    )
    attention = {
        kind: Attention(
            heads=config.num_attention_heads,
            head_dim=head_dim,
            bias=config.attention_bias,
            output_bias=config.attention_bias,
            relation=relations[kind],
            window=windows[kind],
            dropout=config.attention_dropout,
            output_dropout=config.attention_dropout,
        )
        for kind in relations
    }
    return EncoderSpec(
        hidden_size=config.hidden_size,
        max_length=config.max_position_embeddings,
        embeddings=Embeddings(
            vocab_size=config.vocab_size,
            size=config.hidden_size,
            norm=norm(config),
            dropout=config.embedding_dropout,
        ),
        layers=tuple(Layer(attention[kind], feed_forward) for kind in config.layer_types),
        placement=PreNorm(norm(config)),
    )


def head(config: Any) -> HeadSpec:
    """Dense with an activation, norm, dropout, classifier."""
    dense = Dense(config.hidden_size, hidden_activation(config.classifier_activation), bias=config.classifier_bias)
    chain = (dense, Normalize(norm(config)), Dropout(config.classifier_dropout), Dense(config.num_labels))
    if config.classifier_pooling not in POOLINGS:
        raise ValueError(f"classifier_pooling {config.classifier_pooling!r} is not one of {', '.join(POOLINGS)}")
    return HeadSpec(POOLINGS[config.classifier_pooling], chain)


FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="model",
    names={
        "embeddings.tok_embeddings": "embeddings.word",
        "embeddings.norm": "embeddings.norm",
        "layers.{}.attn_norm": "layers.{}.attention_norm",
        "layers.{}.attn.Wqkv": ("layers.{}.query", "layers.{}.key", "layers.{}.value"),
        "layers.{}.attn.Wo": "layers.{}.attention_output",
        "layers.{}.mlp_norm": "layers.{}.feed_forward_norm",
        "layers.{}.mlp.Wi": ("layers.{}.gate", "layers.{}.up"),
        "layers.{}.mlp.Wo": "layers.{}.down",
        "final_norm": "final_norm",
    },
    head_names={"head.dense": "head.0", "head.norm": "head.1", "classifier": "head.3"},
    fresh=("head.", "classifier."),
    unused=("decoder.",),
)
