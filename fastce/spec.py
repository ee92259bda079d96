"""What a network is, as data: below these classes no file knows a model's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class PositionScheme:
    """How absolute positions are counted.

    Attributes:
        offset: Position of a sequence's first token.
        padding_id: A token id that takes no position of its own (it always gets `offset - 1`), or None where every
            token counts. The rule of fairseq's models: a literal padding token inside a text counts as padding.
    """

    offset: int = 0
    padding_id: int | None = None


@dataclass(frozen=True)
class EncoderSpec:
    """A bidirectional transformer encoder with absolute positions and LayerNorm after each residual sum.

    Attributes:
        num_layers: Number of transformer layers.
        num_heads: Attention heads per layer; `hidden_size` is a multiple of it.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the feed-forward network.
        embedding_size: Width of the embedding tables; where it differs from `hidden_size`, a projection follows them.
        vocab_size: Rows of the word table.
        max_positions: Rows of the position table, unused first rows included.
        token_types: Rows of the token-type table; 0 where there is none.
        activation: Activation of the feed-forward network.
        layer_norm_eps: Added to the variance in each LayerNorm.
        positions: How positions are counted.
        hidden_dropout: Dropout after the embeddings and after each sublayer, in training.
        attention_dropout: Dropout of the attention probabilities, in training.
    """

    num_layers: int
    num_heads: int
    hidden_size: int
    intermediate_size: int
    embedding_size: int
    vocab_size: int
    max_positions: int
    token_types: int
    activation: Activation
    layer_norm_eps: float
    positions: PositionScheme
    hidden_dropout: float
    attention_dropout: float

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that has a position for every token."""
        return self.max_positions - self.positions.offset


@dataclass(frozen=True)
class HeadSpec:
    """A classification head on the first token: dropout, dense, activation, dropout, output.

    Attributes:
        num_labels: Number of logits.
        activation: Activation between the dense and the output layer.
        input_dropout: Dropout before the dense layer, in training.
        dropout: Dropout before the output layer, in training.
    """

    num_labels: int
    activation: Activation
    input_dropout: float
    dropout: float
