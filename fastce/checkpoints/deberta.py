"""DeBERTa-v2 and -v3 (https://arxiv.org/abs/2006.03654, https://arxiv.org/abs/2111.09543): disentangled attention."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, hidden_activation, post_norm_encoder, reject_others
from fastce.checkpoints.relative import linear_rows, logarithmic_buckets
from fastce.spec import (
    AbsolutePositions,
    Dense,
    DisentangledAttention,
    Dropout,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    LayerNorm,
)

TERMS = {"c2p", "p2c"}
NORMS: dict[str, bool] = {"none": False, "layer_norm": True}


def relation(config: Any) -> DisentangledAttention:
    """How contents and relative positions meet."""
    terms = set(config.pos_att_type or ())
    if not terms or terms - TERMS:
        raise ValueError(f"pos_att_type {config.pos_att_type!r} is not one or both of {', '.join(sorted(TERMS))}")
    norm = getattr(config, "norm_rel_ebd", "none")
    if norm not in NORMS:
        raise ValueError(f"norm_rel_ebd {norm!r} is not one of {', '.join(NORMS)}")
    most = config.max_relative_positions if config.max_relative_positions > 0 else config.max_position_embeddings
    buckets = getattr(config, "position_buckets", -1)
    if buckets > 0 and buckets % 2 != 0:
        raise ValueError(f"position_buckets={buckets} in the config; only even numbers are described")
    return DisentangledAttention(
        span=buckets if buckets > 0 else most,
        rows=logarithmic_buckets(buckets, most) if buckets > 0 else linear_rows(most),
        content_to_position="c2p" in terms,
        position_to_content="p2c" in terms,
        shared_projections=getattr(config, "share_att_key", False),
        norm=LayerNorm(config.layer_norm_eps) if NORMS[norm] else None,
        dropout=config.hidden_dropout_prob,
    )


def encoder(config: Any) -> EncoderSpec:
    """BERT's network with another attention; absolute positions where the config asks for them."""
    size, heads = config.hidden_size, config.num_attention_heads
    widths = {"embedding_size": size, "attention_head_size": size // max(heads, 1)}
    reject_others(vars(config), {"relative_attention": True, "conv_kernel_size": 0} | widths)
    has_positions = getattr(config, "position_biased_input", True)
    return post_norm_encoder(
        num_layers=config.num_hidden_layers,
        hidden_size=size,
        max_length=config.max_position_embeddings,
        embeddings=Embeddings(
            vocab_size=config.vocab_size,
            size=size,
            norm=LayerNorm(config.layer_norm_eps),
            token_types=config.type_vocab_size,
            positions=AbsolutePositions(config.max_position_embeddings) if has_positions else None,
            dropout=config.hidden_dropout_prob,
        ),
        heads=heads,
        relation=relation(config),
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
    """Dropout, dense with an activation, dropout, classifier."""
    if config.pooler_hidden_size != config.hidden_size:
        raise ValueError(f"pooler_hidden_size {config.pooler_hidden_size} is not the hidden_size {config.hidden_size}")
    dropout = getattr(config, "cls_dropout", None)
    return HeadSpec(
        "first",
        (
            Dropout(config.pooler_dropout),
            Dense(config.hidden_size, hidden_activation(config.pooler_hidden_act)),
            Dropout(config.hidden_dropout_prob if dropout is None else dropout),
            Dense(config.num_labels),
        ),
    )


LAYER = "encoder.layer.{}"
FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="deberta",
    names={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.rel_embeddings": "relative_embeddings",
        "encoder.LayerNorm": "relative_norm",
        f"{LAYER}.attention.self.query_proj": "layers.{}.query",
        f"{LAYER}.attention.self.key_proj": "layers.{}.key",
        f"{LAYER}.attention.self.value_proj": "layers.{}.value",
        f"{LAYER}.attention.self.pos_key_proj": "layers.{}.position_key",
        f"{LAYER}.attention.self.pos_query_proj": "layers.{}.position_query",
        f"{LAYER}.attention.output.dense": "layers.{}.attention_output",
        f"{LAYER}.attention.output.LayerNorm": "layers.{}.attention_norm",
        f"{LAYER}.intermediate.dense": "layers.{}.up",
        f"{LAYER}.output.dense": "layers.{}.down",
        f"{LAYER}.output.LayerNorm": "layers.{}.feed_forward_norm",
    },
    head_names={"pooler.dense": "head.1", "classifier": "head.3"},
    fresh=("pooler.", "classifier."),
    unused=(
        "cls.",
        "lm_predictions.",
        "mask_predictions.",
        "deberta.embeddings.position_ids",
        "embeddings.position_ids",
    ),
)
