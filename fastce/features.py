"""What a network asks of a backend, found by walking its description, so that no field can be forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from fastce.spec import EncoderSpec, HeadSpec

FEATURES: dict[str, str] = {
    "LayerNorm": "LayerNorm",
    "LayerNorm.bias=yes": "LayerNorm with a bias",
    "LayerNorm.bias=no": "LayerNorm without a bias",
    "RMSNorm": "RMSNorm",
    "PostNorm": "norms behind the sublayers",
    "PreNorm": "norms before the sublayers",
    "Embeddings.norm": "a norm of the embeddings",
    "AbsolutePositions": "a table of positions",
    "AbsolutePositions.padding_id": "padding tokens that take no position",
    "RotaryEmbedding": "rotary embeddings",
    "RelativeBias": "a bias by relative position",
    "DisentangledAttention": "disentangled attention",
    "DisentangledAttention.content_to_position=yes": "content-to-position scores",
    "DisentangledAttention.content_to_position=no": "disentangled attention without content-to-position scores",
    "DisentangledAttention.position_to_content=yes": "position-to-content scores",
    "DisentangledAttention.position_to_content=no": "disentangled attention without position-to-content scores",
    "DisentangledAttention.shared_projections=yes": "positions projected by the contents' matrices",
    "DisentangledAttention.shared_projections=no": "positions projected by matrices of their own",
    "DisentangledAttention.norm": "a norm of the relative positions",
    "Attention.kv_heads": "keys and values shared by several heads",
    "Attention.bias=yes": "attention with biases",
    "Attention.bias=no": "attention without biases",
    "Attention.output_bias=yes": "an attention output with a bias",
    "Attention.output_bias=no": "an attention output without a bias",
    "Attention.relation": "attention that knows positions",
    "Attention.window": "sliding-window attention",
    "Attention.causal=yes": "causal attention",
    "Attention.causal=no": "attention in both directions",
    "Attention.qk_norm": "norms of queries and keys",
    "FeedForward.activation=gelu": "GELU",
    "FeedForward.activation=gelu_tanh": "GELU by tanh",
    "FeedForward.activation=relu": "ReLU",
    "FeedForward.activation=silu": "SiLU",
    "FeedForward.activation=tanh": "tanh",
    "FeedForward.gated=yes": "gated feed-forward networks",
    "FeedForward.gated=no": "plain feed-forward networks",
    "FeedForward.bias=yes": "feed-forward networks with biases",
    "FeedForward.bias=no": "feed-forward networks without biases",
    "FeedForward.output_bias=yes": "a feed-forward output with a bias",
    "FeedForward.output_bias=no": "a feed-forward output without a bias",
    "Layer.stored": "layers that share their weights",
    "Embeddings.positions": "embeddings with positions",
    "HeadSpec.pooling=first": "a head on the first token",
    "HeadSpec.pooling=last": "a head on the last token",
    "HeadSpec.pooling=mean": "a head on the mean of all tokens",
    "Dense": "a dense layer in the head",
    "Dense.activation=gelu": "GELU in the head",
    "Dense.activation=gelu_tanh": "GELU by tanh in the head",
    "Dense.activation=relu": "ReLU in the head",
    "Dense.activation=silu": "SiLU in the head",
    "Dense.activation=tanh": "tanh in the head",
    "Dense.bias=yes": "a dense layer with a bias in the head",
    "Dense.bias=no": "a dense layer without a bias in the head",
    "Normalize": "a norm in the head",
    "Dropout": "dropout in the head",
    "TokenDifference": "the difference of two tokens' logits",
}
"""Every feature that a description can ask for, in words."""

STRUCTURE = frozenset({"EncoderSpec", "Embeddings", "Layer", "Attention", "FeedForward", "HeadSpec"})
"""Classes that every description has: no features by themselves."""


def features(encoder: EncoderSpec, head: HeadSpec) -> frozenset[str]:
    """The features that a network asks for, each a key of `FEATURES`.

    A class is one, and so is each choice that is no size: a word, a yes or no, something that may be missing.
    """
    return frozenset(found for part in (encoder, head) for found in walk(part))


def walk(part: object) -> Iterator[str]:
    """The features of one part of a description and of all that is in it."""
    kind = type(part).__name__
    if kind not in STRUCTURE:
        yield kind
    for field in fields(part):  # type: ignore[arg-type]
        value, name = getattr(part, field.name), f"{kind}.{field.name}"
        is_optional = "None" in str(field.type)
        if isinstance(value, bool):
            yield f"{name}={'yes' if value else 'no'}"
        elif isinstance(value, str):
            yield f"{name}={value}"
        elif is_optional and value is not None:
            yield name
        for inner in value if isinstance(value, tuple) else (value,):
            if is_dataclass(inner):
                yield from walk(inner)


def missing(asked: frozenset[str], can: frozenset[str]) -> list[str]:
    """What a backend says against a network: a sentence for each feature that it has not.

    Args:
        asked: The features of the network.
        can: Those of the backend.
    """
    return [f"it has no {FEATURES.get(feature, feature)}" for feature in sorted(asked - can)]


def features_of(words: str) -> frozenset[str]:
    """Features written short: `Attention.bias=yes|no` stands for two.

    Raises:
        KeyError: One is none of `FEATURES`.
    """
    found = set()
    for word in words.split():
        name, _, values = word.partition("=")
        found |= {f"{name}={value}" for value in values.split("|")} if values else {name}
    if unknown := found - FEATURES.keys():
        raise KeyError(f"no features: {sorted(unknown)}")
    return frozenset(found)
