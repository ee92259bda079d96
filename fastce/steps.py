"""The steps of a network's computation, derived from its description once for all engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fastce.spec import (
    Attention,
    Dense,
    DisentangledAttention,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    Norm,
    PreNorm,
)

Keep = Literal["normed", "sum"]


@dataclass(frozen=True)
class AddNorm:
    """The end of a sublayer: its result is added to the stream, and the next one reads the sum normed.

    Attributes:
        norm: The norm; None where the next one reads the sum itself.
        name: Prefix of the norm's parameters.
        keep: What becomes the stream: the normed sum (post-norm) or the sum (pre-norm).
    """

    norm: Norm | None
    name: str
    keep: Keep


@dataclass(frozen=True)
class Attend:
    """Attention as a step.

    Attributes:
        name: Prefix of its parameters, such as `"layers.3"`.
        attention: The attention.
        end: What follows it.
        pooled: Whether only the row that the head reads is asked for; keys and values still come from every token.
    """

    name: str
    attention: Attention
    end: AddNorm
    pooled: bool


@dataclass(frozen=True)
class Feed:
    """A feed-forward network as a step.

    Attributes:
        name: Prefix of its parameters.
        feed_forward: The feed-forward network.
        end: What follows it.
    """

    name: str
    feed_forward: FeedForward
    end: AddNorm


Step: TypeAlias = Attend | Feed


@dataclass(frozen=True)
class Program:
    """A network as the list of what is to be computed: what engines read.

    Attributes:
        hidden_size: Width of the residual stream.
        embeddings: How tokens become vectors.
        first: What follows the embeddings, which are the stream's beginning.
        steps: The sublayers, in order.
        head: How the last rows become logits.
    """

    hidden_size: int
    embeddings: Embeddings
    first: AddNorm
    steps: tuple[Step, ...]
    head: HeadSpec


def program(spec: EncoderSpec, head: HeadSpec) -> Program:
    """The program of a network."""
    return Program(spec.hidden_size, spec.embeddings, embedding_end(spec), tuple(steps(spec, head)), head)


def embedding_end(spec: EncoderSpec) -> AddNorm:
    """What follows the embeddings: the first norm of pre-norm, unless the embeddings have one of their own."""
    if isinstance(spec.placement, PreNorm) and spec.embeddings.norm is None:
        return AddNorm(spec.placement.norm, f"{stored_name(spec, 0)}.attention_norm", "sum")
    return AddNorm(None, "", "sum")


def steps(spec: EncoderSpec, head: HeadSpec) -> Iterator[Step]:
    """The layers as one list of steps: no engine needs to know where the norms are.

    Args:
        spec: The encoder.
        head: The head.

    Yields:
        The steps, in order: attention and feed-forward network in turns.
    """
    last = len(spec.layers) - 1
    for number, layer in enumerate(spec.layers):
        name = stored_name(spec, number)
        if isinstance(spec.placement, PreNorm):
            following = "final_norm" if number == last else f"{stored_name(spec, number + 1)}.attention_norm"
            inner, outer = (
                AddNorm(spec.placement.norm, end, "sum") for end in (f"{name}.feed_forward_norm", following)
            )
        else:
            ends = (f"{name}.attention_norm", f"{name}.feed_forward_norm")
            inner, outer = (AddNorm(spec.placement.norm, end, "normed") for end in ends)
        yield Attend(name, layer.attention, inner, pooled=number == last and head.pooling != "mean")
        yield Feed(name, layer.feed_forward, outer)


def stored_name(spec: EncoderSpec, number: int) -> str:
    """Prefix of the parameters that a layer computes with."""
    stored = spec.layers[number].stored
    return f"layers.{number if stored is None else stored}"


def num_labels(head: HeadSpec) -> int:
    """Logits of a pair."""
    last = head.steps[-1]
    return last.size if isinstance(last, Dense) else 1


def kv_heads(attention: Attention) -> int:
    """Heads of keys and values."""
    return attention.heads if attention.kv_heads is None else attention.kv_heads


def score_terms(attention: Attention) -> int:
    """Products that a score is the sum of: queries with keys, and contents with positions."""
    relation = attention.relation
    if not isinstance(relation, DisentangledAttention):
        return 1
    return 1 + relation.content_to_position + relation.position_to_content


def is_foldable(attention: Attention) -> bool:
    """Whether a pooled query sees all keys, with no position in its scores: then neither K nor V need be formed.

    Head j scores a row x of the input with q_j . (Wk_j x) = (Wk_j^T q_j) . x, where the bias of K adds the same to all
    scores and cancels, and its context is sum_x p_x (Wv_j x) = Wv_j (sum_x p_x x).
    """
    return (
        attention.relation is None and attention.window is None and not attention.causal and attention.qk_norm is None
    )
