"""The operations that a network is computed with: `reference`, `cpp` and other backends each implement them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import torch

from fastce.backends.weights import Linear, NormWeights
from fastce.packing import Spans
from fastce.spec import Activation, Attention, Pooling
from fastce.steps import Keep


class BiasTable(NamedTuple):
    """What `RelativeBias` adds to the scores: for each head the table's row of a query's distance from a key.

    Attributes:
        bias: `[buckets, heads]`.
    """

    bias: torch.Tensor


class PositionTables(NamedTuple):
    """The relative positions of `DisentangledAttention`, projected: what contents meet beside each other.

    Attributes:
        keys: `[2 * span, heads, head_dim]`, for the queries of contents; None where these do not meet them.
        queries: The same for the keys of contents.
    """

    keys: torch.Tensor | None
    queries: torch.Tensor | None


RelativeTables: TypeAlias = BiasTable | PositionTables


class Ops(Protocol):
    """Differentiable operations over tokens that lie end to end. Dropout applies wherever its probability is not 0."""

    def embed(
        self, tables: Sequence[tuple[torch.Tensor, torch.Tensor]], norm: NormWeights | None, dropout: float
    ) -> torch.Tensor:
        """The norm of the sum of each token's rows, dropped out.

        Args:
            tables: Pairs of int32 ids `[total_tokens]` and a table `[rows, size]`.
            norm: The norm, or None.
            dropout: Probability of dropping an element.

        Returns:
            `[total_tokens, size]`.
        """
        ...

    def linear(self, x: torch.Tensor, linear: Linear) -> torch.Tensor:
        """A linear layer: `[rows, in_features]` to `[rows, out_features]`."""
        ...

    def activated(self, x: torch.Tensor, linear: Linear, activation: Activation) -> torch.Tensor:
        """`activation(linear(x))`, `[rows, out_features]`."""
        ...

    def gated(self, x: torch.Tensor, gate: Linear, up: Linear, activation: Activation) -> torch.Tensor:
        """`activation(gate(x)) * up(x)`, `[rows, out_features]`."""
        ...

    def add_norm(
        self,
        x: torch.Tensor,
        linear: Linear,
        stream: torch.Tensor,
        norm: NormWeights | None,
        keep: Keep,
        dropout: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The end of a sublayer: its last linear layer, dropped out, added to the stream, and normed.

        Args:
            x: `[rows, in_features]`.
            linear: The linear layer, to the width of the stream.
            stream: `[rows, hidden_size]`.
            norm: The norm; None leaves the sum as it is.
            keep: What becomes the stream: the sum, or the normed sum.
            dropout: Probability of dropping an element of the linear layer's result.

        Returns:
            The stream and what the next sublayer reads, both `[rows, hidden_size]`; one and the same where they equal.
        """
        ...

    def normalize(self, x: torch.Tensor, norm: NormWeights) -> torch.Tensor:
        """A norm over the last dimension."""
        ...

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spans: Spans,
        attention: Attention,
        rows: Pooling | None,
        dropout: float,
        relative: RelativeTables | None,
    ) -> torch.Tensor:
        """softmax(q k^T / sqrt(head_dim)) v within each sequence (https://arxiv.org/abs/1706.03762, equation 1).

        Queries and keys are rotated first where the relation says so; window and causality are in `attention`. With
        `PositionTables` the scores are (q_i k_j + q_i keys_r + queries_r k_j) / sqrt(head_dim * number of terms), where
        r is the row of the distance j - i (https://arxiv.org/abs/2006.03654, equation 4).

        Args:
            query: `[total_rows, heads, head_dim]`.
            key: `[total_tokens, kv_heads, head_dim]`.
            value: `[total_tokens, kv_heads, head_dim]`.
            spans: The sequences.
            attention: Which attention.
            rows: None for a query of each token; else one a sequence, of its first or last token.
            dropout: Probability of dropping an attention weight.
            relative: The tables of a relation by distance, whose rows are in `attention`; None where there is none.

        Returns:
            `[total_rows, heads, head_dim]`.
        """
        ...

    def pool(self, x: torch.Tensor, spans: Spans, pooling: Pooling) -> torch.Tensor:
        """One row of each sequence: `[total_tokens, size]` to `[num_pairs, size]`."""
        ...

    def dropout(self, x: torch.Tensor, probability: float) -> torch.Tensor:
        """Zeroes elements with `probability` and scales the others up."""
        ...

    def zero_gradients(self, parameters: Iterable[torch.nn.Parameter], *, for_good: bool) -> None:
        """Forgets the gradients of parameters; `for_good` where no further step follows."""
        ...
