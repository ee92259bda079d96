"""Llama's network (https://arxiv.org/abs/2302.13971) and its descendants, which look back only.

Norms before the sublayers, rotary embeddings, keys and values shared by several heads, gated layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastce.checkpoints.family import Family, hidden_activation
from fastce.checkpoints.rotary import rotary_embedding
from fastce.spec import (
    Attention,
    Dense,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    Layer,
    Norm,
    PreNorm,
    RMSNorm,
)


def decoder(
    config: Any, *, bias: bool, output_bias: bool, feed_forward_bias: bool = False, qk_norm: Norm | None = None
) -> EncoderSpec:
    """Reads the config fields that all of them share.

    Args:
        config: A Hugging Face config.
        bias: Whether queries, keys and values have biases.
        output_bias: Whether the attention's output has one.
        feed_forward_bias: Whether the feed-forward network has them.
        qk_norm: The norm of each head's query and key.
    """
    heads, hidden = config.num_attention_heads, config.hidden_size
    head_dim = getattr(config, "head_dim", None) or hidden // max(heads, 1)
    kv_heads = config.num_key_value_heads
    if heads < 1 or kv_heads < 1 or heads % kv_heads != 0:
        raise ValueError(f"num_key_value_heads {kv_heads} does not divide {heads} heads")
    windows = {"full_attention": None}
    if getattr(config, "sliding_window", None):
        windows["sliding_attention"] = config.sliding_window - 1  # a query's own key counts there
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    if unknown := sorted(set(kinds) - windows.keys()):
        raise ValueError(f"layer_types has {', '.join(unknown)}, none of {', '.join(windows)}")
    relation = rotary_embedding(config, head_dim)
    norm = RMSNorm(config.rms_norm_eps)
    feed_forward = FeedForward(
        size=config.intermediate_size,
        activation=hidden_activation(config.hidden_act),
        gated=True,
        bias=feed_forward_bias,
        output_bias=feed_forward_bias,
    )
    layers = {
        kind: Layer(
            Attention(
                heads=heads,
                head_dim=head_dim,
                kv_heads=None if kv_heads == heads else kv_heads,
                bias=bias,
                output_bias=output_bias,
                relation=relation,
                window=window,
                causal=True,
                qk_norm=qk_norm,
                dropout=config.attention_dropout,
            ),
            feed_forward,
        )
        for kind, window in windows.items()
    }
    return EncoderSpec(
        hidden_size=hidden,
        max_length=config.max_position_embeddings,
        embeddings=Embeddings(vocab_size=config.vocab_size, size=hidden, norm=None),
        layers=tuple(layers[kind] for kind in kinds),
        placement=PreNorm(norm),
    )


def head(config: Any) -> HeadSpec:
    """The last token's row through a matrix."""
    return HeadSpec("last", (Dense(config.num_labels, bias=False),))


def decoder_family(encoder: Callable[[Any], EncoderSpec]) -> Family:
    """A family that differs from others in its encoder alone."""
    return Family(
        encoder=encoder,
        head=head,
        prefix="model",
        names={
            "embed_tokens": "embeddings.word",
            "layers.{}.input_layernorm": "layers.{}.attention_norm",
            "layers.{}.self_attn.q_proj": "layers.{}.query",
            "layers.{}.self_attn.k_proj": "layers.{}.key",
            "layers.{}.self_attn.v_proj": "layers.{}.value",
            "layers.{}.self_attn.q_norm": "layers.{}.query_norm",
            "layers.{}.self_attn.k_norm": "layers.{}.key_norm",
            "layers.{}.self_attn.o_proj": "layers.{}.attention_output",
            "layers.{}.post_attention_layernorm": "layers.{}.feed_forward_norm",
            "layers.{}.mlp.gate_proj": "layers.{}.gate",
            "layers.{}.mlp.up_proj": "layers.{}.up",
            "layers.{}.mlp.down_proj": "layers.{}.down",
            "norm": "final_norm",
        },
        head_names={"score": "head.0"},
        fresh=("score.",),
        unused=("lm_head.",),
        trims_padding=True,
    )
