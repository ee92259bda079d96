"""The parameters that a network has to have, derived from the steps of its computation."""

from __future__ import annotations

from typing import Literal, NamedTuple

from fastce.spec import (
    Attention,
    Dense,
    DisentangledAttention,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    LayerNorm,
    Norm,
    Normalize,
    RelativeBias,
    TokenDifference,
)
from fastce.steps import AddNorm, Attend, kv_heads, program

Role = Literal["table", "norm", "matrix", "bias", "head matrix", "head bias"]


class Parameter(NamedTuple):
    """What a network has to have under a name.

    Attributes:
        shape: Its shape; a matrix is `(out_features, in_features)`.
        role: `"matrix"` and `"bias"` for the products of the layers, which run in the model's precision;
            `"head matrix"` and `"head bias"` for those that stay in float32; `"table"` for embeddings.
    """

    shape: tuple[int, ...]
    role: Role


def parameters(spec: EncoderSpec, head: HeadSpec) -> dict[str, Parameter]:
    """Every parameter of a network, under fastce's own names, in the order of the computation.

    Args:
        spec: The encoder.
        head: The head.
    """
    network = program(spec, head)
    found = Collector(spec.hidden_size)
    found.embeddings(network.embeddings)
    found.end(network.first)
    for step in network.steps:
        if isinstance(step, Attend):
            found.attention(step.name, step.attention)
        else:
            found.feed_forward(step.name, step.feed_forward)
        found.end(step.end)
    found.head(head)
    return found.parameters


class Collector:
    """Collects the parameters of the parts of a network.

    Args:
        hidden_size: Width of the residual stream.
    """

    def __init__(self, hidden_size: int):
        self.hidden_size = hidden_size
        self.parameters: dict[str, Parameter] = {}

    def embeddings(self, part: Embeddings) -> None:
        """Tables, norm and projection."""
        self._table("embeddings.word", part.vocab_size, part.size)
        if part.positions is not None:
            self._table("embeddings.position", part.positions.rows, part.size)
        if part.token_types:
            self._table("embeddings.token_type", part.token_types, part.size)
        self._norm("embeddings.norm", part.norm, part.size)
        if part.size != self.hidden_size:
            self._head_linear("embeddings.projection", self.hidden_size, part.size, bias=True)

    def attention(self, name: str, part: Attention) -> None:
        """Projections, norms of queries and keys, and what the relation needs."""
        hidden, inner, kv_inner = self.hidden_size, part.heads * part.head_dim, kv_heads(part) * part.head_dim
        self._linear(f"{name}.query", inner, hidden, part.bias)
        self._linear(f"{name}.key", kv_inner, hidden, part.bias)
        self._linear(f"{name}.value", kv_inner, hidden, part.bias)
        self._norm(f"{name}.query_norm", part.qk_norm, part.head_dim)
        self._norm(f"{name}.key_norm", part.qk_norm, part.head_dim)
        if isinstance(part.relation, RelativeBias):
            self._table("relative_bias", part.relation.buckets, part.heads)
        if isinstance(part.relation, DisentangledAttention):
            self._disentangled(name, part, part.relation)
        self._linear(f"{name}.attention_output", hidden, inner, part.output_bias)

    def feed_forward(self, name: str, part: FeedForward) -> None:
        """Up, down and, where there is one, the gate."""
        if part.gated:
            self._linear(f"{name}.gate", part.size, self.hidden_size, part.bias)
        self._linear(f"{name}.up", part.size, self.hidden_size, part.bias)
        self._linear(f"{name}.down", self.hidden_size, part.size, part.output_bias)

    def end(self, part: AddNorm) -> None:
        """The norm behind a sublayer."""
        self._norm(part.name, part.norm, self.hidden_size)

    def head(self, part: HeadSpec) -> None:
        """The chain; a step is known by its number in it."""
        width = self.hidden_size
        for number, step in enumerate(part.steps):
            if isinstance(step, Dense):
                self._head_linear(f"head.{number}", step.size, width, step.bias)
                width = step.size
            elif isinstance(step, Normalize):
                self._norm(f"head.{number}", step.norm, width)
            elif isinstance(step, TokenDifference):
                self._head_linear(f"head.{number}", 1, width, bias=False)

    def _disentangled(self, name: str, attention: Attention, part: DisentangledAttention) -> None:
        inner = attention.heads * attention.head_dim
        self._table("relative_embeddings", 2 * part.span, self.hidden_size)
        self._norm("relative_norm", part.norm, self.hidden_size)
        if part.content_to_position and not part.shared_projections:
            self._linear(f"{name}.position_key", inner, self.hidden_size, attention.bias)
        if part.position_to_content and not part.shared_projections:
            self._linear(f"{name}.position_query", inner, self.hidden_size, attention.bias)

    def _table(self, name: str, rows: int, size: int) -> None:
        self.parameters[f"{name}.weight"] = Parameter((rows, size), "table")

    def _linear(self, name: str, out: int, into: int, bias: bool) -> None:
        self.parameters[f"{name}.weight"] = Parameter((out, into), "matrix")
        if bias:
            self.parameters[f"{name}.bias"] = Parameter((out,), "bias")

    def _head_linear(self, name: str, out: int, into: int, bias: bool) -> None:
        self.parameters[f"{name}.weight"] = Parameter((out, into), "head matrix")
        if bias:
            self.parameters[f"{name}.bias"] = Parameter((out,), "head bias")

    def _norm(self, name: str, norm: Norm | None, size: int) -> None:
        if norm is None:
            return
        self.parameters[f"{name}.weight"] = Parameter((size,), "norm")
        if isinstance(norm, LayerNorm) and norm.bias:
            self.parameters[f"{name}.bias"] = Parameter((size,), "norm")
