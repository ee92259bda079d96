"""The network over packed tokens, once for every backend that works op by op: the loop, and the encoder around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from fastce.backends.ops import BiasTable, Ops, PositionTables, RelativeTables
from fastce.backends.weights import Weights, products
from fastce.checkpoints.network import Stored
from fastce.packing import PackedBatch, Spans
from fastce.spec import Dense, DisentangledAttention, Dropout, HeadSpec, Normalize, Pooling, RelativeBias
from fastce.steps import Attend, Feed, Program
from fastce.threads import torch_threads

Pair = tuple[torch.Tensor, torch.Tensor]
"""The stream, and what the next sublayer reads."""


class OpsEncoder:
    """Runs a network op by op over parameters where they lie. Each pair by itself: no prefixes.

    Args:
        ops: The functions to compute with.
        program: The network.
        stored: Its parameters.
        device: Where to run.
        module: The module that holds the parameters, for training; None where there is none.
    """

    shared_bytes = 0
    batches_exactly = False
    remarks: Sequence[str] = ()

    def __init__(
        self,
        ops: Ops,
        program: Program,
        stored: Mapping[str, Stored],
        device: torch.device,
        module: torch.nn.Module | None = None,
    ):
        self.ops = ops
        self.program = program
        self.weights = Weights(stored)
        self.device = device
        self.module = module

    @torch.inference_mode()
    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`."""
        with torch_threads(num_threads):
            return self._run(batch, training=False).float()

    def training_logits(self, batch: PackedBatch) -> torch.Tensor:
        """See `TrainableEncoder`. Recomputes activations where the module has gradient checkpointing enabled."""
        assert self.module is not None
        training = self.module.training
        recompute = training and any(getattr(part, "gradient_checkpointing", False) for part in self.module.modules())
        return self._run(batch, training=training, recompute=recompute)

    def zero_gradients(self, *, for_good: bool = False) -> None:
        """See `TrainableEncoder`."""
        assert self.module is not None
        self.ops.zero_gradients(self.module.parameters(), for_good=for_good)

    def _run(self, batch: PackedBatch, *, training: bool, recompute: bool = False) -> torch.Tensor:
        return self._forward(self._to_device(batch), training=training, recompute=recompute)

    def _forward(self, batch: PackedBatch, *, training: bool = False, recompute: bool = False) -> torch.Tensor:
        return Forward(self.ops, self.program, self.weights, batch.spans, training).logits(batch, recompute=recompute)

    def _to_device(self, batch: PackedBatch) -> PackedBatch:
        return batch.to(self.device)


class Forward:
    """One pass over a batch.

    Args:
        ops: The functions to compute with.
        program: The network.
        weights: Its parameters.
        spans: The sequences.
        training: Whether dropout applies.
    """

    def __init__(self, ops: Ops, program: Program, weights: Weights, spans: Spans, training: bool):
        self.ops = ops
        self.program = program
        self.weights = weights
        self.spans = spans
        self.training = training

    def logits(self, batch: PackedBatch, *, recompute: bool = False) -> torch.Tensor:
        """Runs the whole network.

        Args:
            batch: The sequences.
            recompute: Whether the backward pass computes each sublayer again instead of keeping its activations.

        Returns:
            Logits, `[num_pairs, num_labels]`.
        """
        stream = self._embed(batch)  # [total_tokens, hidden_size]
        first = self.weights.norm(self.program.first.norm, self.program.first.name)
        x = stream if first is None else self.ops.normalize(stream, first)
        pooling = self.program.head.pooling
        for step in self.program.steps:
            run: Any = self._attend if isinstance(step, Attend) else self._feed
            if recompute:
                stream, x = checkpoint(run, step, stream, x, use_reentrant=False)
            else:
                stream, x = run(step, stream, x)
        if pooling == "mean":
            x = self.ops.pool(x, self.spans, pooling)  # [num_pairs, hidden_size]
        return self._classify(self.program.head, x)

    def _embed(self, batch: PackedBatch) -> torch.Tensor:
        embeddings, weights = self.program.embeddings, self.weights
        tables = [(batch.input_ids, weights.table("embeddings.word"))]
        if embeddings.token_types:
            tables.append((batch.token_type_ids, weights.table("embeddings.token_type")))
        if embeddings.positions is not None:
            tables.append((batch.position_ids, weights.table("embeddings.position")))
        norm = weights.norm(embeddings.norm, "embeddings.norm")
        hidden = self.ops.embed(tables, norm, self._probability(embeddings.dropout))
        if embeddings.size == self.program.hidden_size:
            return hidden
        return self.ops.linear(hidden, weights.linear("embeddings.projection")).to(hidden.dtype)

    def _attend(self, step: Attend, stream: torch.Tensor, x: torch.Tensor) -> Pair:
        if step.pooled:
            stream = self.ops.pool(stream, self.spans, self.program.head.pooling)  # [num_pairs, hidden_size]
        context = self._context(step, x).flatten(1)
        return self._end(step, context, "attention_output", stream, step.attention.output_dropout)

    def _context(self, step: Attend, x: torch.Tensor) -> torch.Tensor:
        """What attention makes of the values, `[rows, heads, head_dim]`."""
        ops, attention, spans = self.ops, step.attention, self.spans
        query, key, value = (self.weights.linear(f"{step.name}.{part}") for part in ("query", "key", "value"))
        rows: Pooling | None = self.program.head.pooling if step.pooled else None
        if rows is None:
            projected = products(x, (query, key, value))
        else:
            projected = [ops.linear(ops.pool(x, spans, rows), query), *products(x, (key, value))]
        q, k, v = (part.unflatten(-1, (-1, attention.head_dim)) for part in projected)  # [rows, heads, head_dim]
        if attention.qk_norm is not None:
            q, k = (
                ops.normalize(part, norm)
                for part, name in ((q, "query_norm"), (k, "key_norm"))
                if (norm := self.weights.norm(attention.qk_norm, f"{step.name}.{name}"))
            )
        dropout, relative = self._probability(attention.dropout), self._relative(step)
        return ops.attention(q, k, v, spans, attention, rows, dropout, relative)

    def _relative(self, step: Attend) -> RelativeTables | None:
        relation = step.attention.relation
        if isinstance(relation, RelativeBias):
            return BiasTable(self.weights.table("relative_bias"))
        if not isinstance(relation, DisentangledAttention):
            return None
        table = self.weights.table("relative_embeddings")  # [2 * span, hidden_size]
        norm = self.weights.norm(relation.norm, "relative_norm")
        table = self._drop(table if norm is None else self.ops.normalize(table, norm), relation.dropout)

        def projected(part: str) -> torch.Tensor:
            name = part if relation.shared_projections else f"position_{part}"
            rows = self.ops.linear(table, self.weights.linear(f"{step.name}.{name}"))
            return rows.unflatten(-1, (-1, step.attention.head_dim))

        return PositionTables(
            keys=projected("key") if relation.content_to_position else None,
            queries=projected("query") if relation.position_to_content else None,
        )

    def _feed(self, step: Feed, stream: torch.Tensor, x: torch.Tensor) -> Pair:
        feed, up = step.feed_forward, self.weights.linear(f"{step.name}.up")
        if feed.gated:
            inner = self.ops.gated(x, self.weights.linear(f"{step.name}.gate"), up, feed.activation)
        else:
            inner = self.ops.activated(x, up, feed.activation)
        inner = self._drop(inner, feed.dropout)
        return self._end(step, inner, "down", stream, feed.output_dropout)

    def _end(self, step: Attend | Feed, x: torch.Tensor, name: str, stream: torch.Tensor, dropout: float) -> Pair:
        linear = self.weights.linear(f"{step.name}.{name}")
        norm = self.weights.norm(step.end.norm, step.end.name)
        return self.ops.add_norm(x, linear, stream, norm, step.end.keep, self._probability(dropout))

    def _classify(self, head: HeadSpec, x: torch.Tensor) -> torch.Tensor:
        """The chain of the head, from `[num_pairs, hidden_size]` on."""
        for number, part in enumerate(head.steps):
            name = f"head.{number}"
            if isinstance(part, Dropout):
                x = self._drop(x, part.probability)
            elif isinstance(part, Normalize):
                x = self.ops.normalize(x, self.weights.norm(part.norm, name))  # type: ignore[arg-type]
            elif isinstance(part, Dense) and part.activation is not None:
                x = self.ops.activated(x, self.weights.linear(name), part.activation)
            else:
                x = self.ops.linear(x, self.weights.linear(name))
        return x

    def _drop(self, x: torch.Tensor, probability: float) -> torch.Tensor:
        probability = self._probability(probability)
        return self.ops.dropout(x, probability) if probability > 0.0 else x

    def _probability(self, dropout: float) -> float:
        return dropout if self.training else 0.0
