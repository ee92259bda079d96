"""What a network is, as data: below these classes no file knows a model's name.

Alternatives are classes of their own; what a network does not have, its description does not mention. What follows from
a description (the steps of the computation, the parameters, the features that a backend must have) is derived in
`steps.py` and `features.py`, never written down a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]
Pooling = Literal["first", "last", "mean"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ON_CPU: dict[Precision, Precision] = {"fp32": "fp32", "bf16": "bf16", "fp16": "bf16", "int8": "int8"}
"""What products in a precision multiply on CPUs, which have no fast float16 arithmetic, and no fp8 at all."""


@dataclass(frozen=True)
class LayerNorm:
    """LayerNorm (https://arxiv.org/abs/1607.06450) with a weight.

    Attributes:
        eps: Added to the variance.
        bias: Whether there is a bias as well.
    """

    eps: float
    bias: bool = True


@dataclass(frozen=True)
class RMSNorm:
    """Division by the root mean square, times a weight (https://arxiv.org/abs/1910.07467).

    Attributes:
        eps: Added to the mean of the squares.
    """

    eps: float


Norm: TypeAlias = LayerNorm | RMSNorm


@dataclass(frozen=True)
class PostNorm:
    """Each sublayer's result is `norm(x + sublayer(x))`, and the next one reads that (https://arxiv.org/abs/1706.03762).

    Attributes:
        norm: The norm behind each sublayer.
    """

    norm: Norm


@dataclass(frozen=True)
class PreNorm:
    """Each sublayer reads `norm(x)` and adds to x (https://arxiv.org/abs/2002.04745); a last norm follows all layers.

    Where the embeddings have a norm of their own, the first sublayer reads its result and has none.

    Attributes:
        norm: The norm before each sublayer, and the last one.
    """

    norm: Norm


@dataclass(frozen=True)
class AbsolutePositions:
    """A table of positions, and how they are counted.

    Attributes:
        rows: Rows of the table, unused first rows included.
        offset: Position of a sequence's first token.
        padding_id: A token id that takes no position of its own (it always gets `offset - 1`), or None where every
            token counts. The rule of fairseq's models: a literal padding token inside a text counts as padding.
    """

    rows: int
    offset: int = 0
    padding_id: int | None = None


@dataclass(frozen=True)
class RotaryEmbedding:
    """Rotation of queries and keys by their position (https://arxiv.org/abs/2104.09864).

    Element i of the first half of a head's rotated part turns with element i of the second half.

    Attributes:
        frequencies: Angle per position of each pair of elements, `[rotated elements / 2]`, in the order of the pairs;
            scaling of the frequencies is in them. Elements of the head beyond the rotated ones stay as they are.
        scale: Factor of sine and cosine.
    """

    frequencies: tuple[float, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class RelativeBias:
    """A learned number for each head and bucket of distances, added to the scores (https://arxiv.org/abs/1910.10683).

    Attributes:
        buckets: Rows of the table, which all layers share.
        rows: The table's row for each distance from a query on to a key, from -n to n, `[2 n + 1]`; farther keys have
            the row of the last one on their side.
    """

    buckets: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class DisentangledAttention:
    """Scores between contents and relative positions (https://arxiv.org/abs/2006.03654, equation 2).

    Attributes:
        span: Half of the rows of the table of relative positions, which all layers share.
        rows: The table's row for each distance from a query on to a key, from -n to n, `[2 n + 1]`; farther keys have
            the row of the last one on their side.
        content_to_position: Whether queries of contents meet keys of positions.
        position_to_content: Whether queries of positions meet keys of contents.
        shared_projections: Whether positions are projected by the matrices of the contents.
        norm: The norm of the table, or None.
        dropout: Dropout of the normed table, in training.
    """

    span: int
    rows: tuple[int, ...]
    content_to_position: bool
    position_to_content: bool
    shared_projections: bool
    norm: Norm | None
    dropout: float = 0.0


Relation: TypeAlias = RotaryEmbedding | RelativeBias | DisentangledAttention


@dataclass(frozen=True)
class Attention:
    """Attention of several heads.

    Attributes:
        heads: Heads of the queries.
        head_dim: Width of a head.
        kv_heads: Heads of keys and values, each for as many neighbouring heads of the queries; None where each has its
            own.
        bias: Whether the projections of queries, keys and values have a bias.
        output_bias: Whether the projection behind the heads has one.
        relation: What positions do in it; None where it knows none.
        window: A query sees keys up to this distance on either side; None: all.
        causal: Whether a query sees no key behind itself.
        qk_norm: The norm of each head's query and key, before a rotation; None where there is none.
        dropout: Dropout of the attention probabilities, in training.
        output_dropout: Dropout behind the last projection, in training.
    """

    heads: int
    head_dim: int
    kv_heads: int | None = None
    bias: bool = True
    output_bias: bool = True
    relation: Relation | None = None
    window: int | None = None
    causal: bool = False
    qk_norm: Norm | None = None
    dropout: float = 0.0
    output_dropout: float = 0.0


@dataclass(frozen=True)
class FeedForward:
    """`down(activation(up(x)))`, or gated `down(activation(gate(x)) * up(x))` (https://arxiv.org/abs/2002.05202).

    Attributes:
        size: Width inside.
        activation: The activation.
        gated: Whether there is a gate.
        bias: Whether `up` and `gate` have a bias.
        output_bias: Whether `down` has one.
        dropout: Dropout before `down`, in training.
        output_dropout: Dropout behind `down`, in training.
    """

    size: int
    activation: Activation
    gated: bool = False
    bias: bool = True
    output_bias: bool = True
    dropout: float = 0.0
    output_dropout: float = 0.0


@dataclass(frozen=True)
class Layer:
    """Attention, then a feed-forward network.

    Attributes:
        attention: The attention.
        feed_forward: The feed-forward network.
        stored: Number of the layer whose weights it computes with; None: its own.
    """

    attention: Attention
    feed_forward: FeedForward
    stored: int | None = None


@dataclass(frozen=True)
class Embeddings:
    """The sum of a token's rows in each table, then the norm, dropout and, to another width, a projection.

    Attributes:
        vocab_size: Rows of the word table.
        size: Width of the tables; where it differs from the encoder's, a projection with a bias follows.
        norm: The norm of the sum, or None.
        token_types: Rows of the token-type table; 0 where there is none.
        positions: The table of positions, or None.
        dropout: Dropout behind the norm, in training.
    """

    vocab_size: int
    size: int
    norm: Norm | None
    token_types: int = 0
    positions: AbsolutePositions | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class EncoderSpec:
    """A transformer encoder.

    Attributes:
        hidden_size: Width of the residual stream.
        max_length: The longest sequence, in tokens.
        embeddings: How tokens become vectors.
        layers: The layers, in order.
        placement: Where the norms are.
    """

    hidden_size: int
    max_length: int
    embeddings: Embeddings
    layers: tuple[Layer, ...]
    placement: PostNorm | PreNorm


@dataclass(frozen=True)
class Dense:
    """A linear layer and an activation.

    Attributes:
        size: Width of its result.
        activation: The activation; None: none.
        bias: Whether there is a bias.
    """

    size: int
    activation: Activation | None = None
    bias: bool = True


@dataclass(frozen=True)
class Normalize:
    """A norm of its own.

    Attributes:
        norm: The norm.
    """

    norm: Norm


@dataclass(frozen=True)
class Dropout:
    """Dropout, in training.

    Attributes:
        probability: Of an element to become 0.
    """

    probability: float


@dataclass(frozen=True)
class TokenDifference:
    """The logit of one token less that of another: one row, the difference of the language-model head's two.

    Attributes:
        positive_id: The token that speaks for the pair.
        negative_id: The token that speaks against it.
    """

    positive_id: int
    negative_id: int


HeadStep: TypeAlias = Dense | Normalize | Dropout | TokenDifference


@dataclass(frozen=True)
class HeadSpec:
    """How a pair's rows become its logits: one row is made of them, which then goes through a chain.

    Attributes:
        pooling: The first token's row, the last one's, or the mean of all.
        steps: The chain; the width of the last dense layer is the number of labels.
    """

    pooling: Pooling
    steps: tuple[HeadStep, ...]
