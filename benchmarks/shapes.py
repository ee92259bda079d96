"""The shapes that benchmarks run on; nothing else lists any."""

from __future__ import annotations

from dataclasses import dataclass

from fastce.spec import EncoderSpec, HeadSpec, PositionScheme

CHUNK_ROWS = 48
"""Rows that the engine gives to a matrix product."""

PRODUCTS = {
    "minilm-square": (384, 384),
    "minilm-up": (384, 1536),
    "minilm-down": (1536, 384),
    "base-up": (768, 3072),
    "base-down": (3072, 768),
    "large-up": (1024, 4096),
    "large-down": (4096, 1024),
}
"""Names to in_features and out_features."""


@dataclass(frozen=True)
class Shape:
    """An encoder's sizes: layers, heads, width, width of the feed-forward network."""

    num_layers: int
    num_heads: int
    hidden_size: int
    intermediate_size: int

    def spec(self) -> EncoderSpec:
        """A BERT of these sizes with a small vocabulary."""
        return EncoderSpec(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            embedding_size=self.hidden_size,
            vocab_size=1000,
            max_positions=512,
            token_types=2,
            activation="gelu",
            layer_norm_eps=1e-12,
            positions=PositionScheme(),
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )


ENCODERS = {
    "minilm-l6": Shape(6, 12, 384, 1536),
    "minilm-l12": Shape(12, 12, 384, 1536),
    "bert-base": Shape(12, 12, 768, 3072),
    "xlmr-large": Shape(24, 16, 1024, 4096),
}
HEAD = HeadSpec(num_labels=1, activation="tanh", input_dropout=0.0, dropout=0.0)

LENGTHS = [150, 141, 133, 126, 120, 114, 109, 104, 100, 96, 92, 88, 84, 80, 76, 72, 68, 64, 59, 54]
"""Tokens of reranking pairs in descending order, 96.5 in the mean."""
