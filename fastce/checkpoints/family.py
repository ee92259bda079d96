"""What a family of models has to say about itself, and the names that all families are translated to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastce.parameters import parameters
from fastce.spec import (
    AbsolutePositions,
    Activation,
    Attention,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    Layer,
    LayerNorm,
    PostNorm,
    Relation,
    TokenDifference,
)

HIDDEN_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""Names in Hugging Face configs and what they compute; the three tanh forms are one formula."""

Names = Mapping[str, str | tuple[str, ...]]
"""Their modules' names to ours; `{}` stands for the layer's number, several of ours for rows stacked in that order."""


class Place(NamedTuple):
    """Where one of our parameters is.

    Attributes:
        name: Name of the parameter that holds it.
        rows: Which of its rows, where others are stacked with it; None: all.
        less: Rows that are subtracted from these, or None.
    """

    name: str
    rows: slice | None
    less: slice | None = None


@dataclass(frozen=True)
class Family:
    """One family of models: how its config is read and where its weights are.

    Attributes:
        encoder: Reads the encoder's description from a Hugging Face config.
        head: Reads the description of the head of its sequence-classification class.
        prefix: Name of the encoder inside that class.
        names: The encoder's modules, by their names in it.
        head_names: The head's modules, by their names in the sequence-classification class.
        fresh: Prefixes of weights that a checkpoint may lack because fine-tuning creates them.
        unused: Prefixes of weights that a checkpoint may carry for other tasks, by their names in the
            sequence-classification class.
        file_names: The encoder's modules by their names in files, where transformers renames them on the way.
        file_prefixes: Names that the encoder has in files.
        trims_padding: Whether its class takes padding tokens at a text's end for padding.
    """

    encoder: Callable[[Any], EncoderSpec]
    head: Callable[[Any], HeadSpec]
    prefix: str
    names: Names
    head_names: Names
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    file_names: Names | None = None
    file_prefixes: tuple[str, ...] = ()
    trims_padding: bool = False

    @property
    def classifier_names(self) -> Names:
        """All modules, by their names in the sequence-classification class."""
        return {f"{self.prefix}.{theirs}": ours for theirs, ours in self.names.items()} | dict(self.head_names)

    def names_in_files(self) -> Iterator[Names]:
        """All modules of that class, by the names that they may have in a file."""
        names = self.names if self.file_names is None else self.file_names
        for prefix in self.file_prefixes or (self.prefix,):
            head = {
                re.sub(rf"^{self.prefix}\.", f"{prefix}.", theirs): ours for theirs, ours in self.head_names.items()
            }
            yield {f"{prefix}.{theirs}": ours for theirs, ours in names.items()} | head


def places(names: Names, encoder: EncoderSpec, head: HeadSpec) -> dict[str, Place]:
    """Where each of our parameters is.

    Args:
        names: Their names.
        encoder: The encoder.
        head: The head.

    Returns:
        Our names, in the order of the computation, to places.

    Raises:
        ValueError: A parameter has no name of theirs.
    """
    wanted = parameters(encoder, head)
    found: dict[str, Place] = {}
    for theirs, ours in names.items():
        for number in range(len(encoder.layers)) if "{}" in theirs else (0,):
            for suffix in ("weight", "bias"):
                stacked = [f"{part.format(number)}.{suffix}" for part in ((ours,) if isinstance(ours, str) else ours)]
                begin = 0
                for name in stacked:
                    if name not in wanted:
                        continue
                    end = begin + wanted[name].shape[0]
                    rows = slice(begin, end) if len(stacked) > 1 else None
                    found[name] = Place(f"{theirs.format(number)}.{suffix}", rows)
                    begin = end
    for number, step in enumerate(head.steps):
        if isinstance(step, TokenDifference):
            rows, less = (slice(token, token + 1) for token in (step.positive_id, step.negative_id))
            place = found.get(f"head.{number}.weight", found["embeddings.word.weight"])  # tied without its own
            found[f"head.{number}.weight"] = place._replace(rows=rows, less=less)
    if nameless := wanted.keys() - found.keys():
        raise ValueError(f"the family has no names for {', '.join(sorted(nameless))}")
    return {name: found[name] for name in wanted}


def stored_shapes(found: Mapping[str, Place], encoder: EncoderSpec, head: HeadSpec) -> dict[str, tuple[int, ...]]:
    """Their parameters' names to shapes, stacked rows together."""
    shapes: dict[str, tuple[int, ...]] = {}
    wanted = parameters(encoder, head)
    for name, place in found.items():
        rows, *rest = wanted[name].shape
        if place.less is not None:
            shapes[place.name] = (encoder.embeddings.vocab_size, *rest)
            continue
        before = shapes[place.name][0] if place.name in shapes else 0
        shapes[place.name] = (rows + before, *rest)
    return shapes


def bert_names() -> dict[str, str | tuple[str, ...]]:
    """Names of the embeddings and layers of every family that descends from BERT's code."""
    layer = "encoder.layer.{}"
    return {
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        f"{layer}.attention.self.query": "layers.{}.query",
        f"{layer}.attention.self.key": "layers.{}.key",
        f"{layer}.attention.self.value": "layers.{}.value",
        f"{layer}.attention.output.dense": "layers.{}.attention_output",
        f"{layer}.attention.output.LayerNorm": "layers.{}.attention_norm",
        f"{layer}.intermediate.dense": "layers.{}.up",
        f"{layer}.output.dense": "layers.{}.down",
        f"{layer}.output.LayerNorm": "layers.{}.feed_forward_norm",
    }


def bert_encoder(
    config: Any, *, offset: int = 0, padding_id: int | None = None, embedding_size: int | None = None
) -> EncoderSpec:
    """Reads the config fields that BERT and its descendants share.

    Args:
        config: A Hugging Face config.
        offset: Position of a sequence's first token.
        padding_id: A token that takes no position, if there is one.
        embedding_size: Width of the embedding tables; None: that of the layers.

    Raises:
        ValueError: The config asks for something that no description has words for.
    """
    reject_unsupported(config)
    sizes = normalized(config)
    return post_norm_encoder(
        num_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        embeddings=Embeddings(
            vocab_size=sizes.vocab_size,
            size=embedding_size or sizes.hidden_size,
            norm=LayerNorm(config.layer_norm_eps),
            token_types=config.type_vocab_size,
            positions=AbsolutePositions(config.max_position_embeddings, offset, padding_id),
            dropout=config.hidden_dropout_prob,
        ),
        heads=sizes.num_attention_heads,
        attention_dropout=config.attention_probs_dropout_prob,
        attention_output_dropout=config.hidden_dropout_prob,
        feed_forward=FeedForward(
            size=config.intermediate_size,
            activation=hidden_activation(config.hidden_act),
            output_dropout=config.hidden_dropout_prob,
        ),
        norm=LayerNorm(config.layer_norm_eps),
    )


def post_norm_encoder(
    *,
    num_layers: int,
    hidden_size: int,
    embeddings: Embeddings,
    heads: int,
    attention_dropout: float,
    attention_output_dropout: float,
    feed_forward: FeedForward,
    norm: LayerNorm,
    relation: Relation | None = None,
    max_length: int | None = None,
) -> EncoderSpec:
    """BERT's network: equal layers, norms behind the sublayers; without a limit given, positions set the length."""
    if max_length is None:
        assert embeddings.positions is not None
        max_length = embeddings.positions.rows - embeddings.positions.offset
    if heads < 1 or hidden_size % heads != 0:
        raise ValueError(f"hidden_size {hidden_size} is no multiple of {heads} attention heads")
    attention = Attention(
        heads=heads,
        head_dim=hidden_size // heads,
        relation=relation,
        dropout=attention_dropout,
        output_dropout=attention_output_dropout,
    )
    return EncoderSpec(
        hidden_size=hidden_size,
        max_length=max_length,
        embeddings=embeddings,
        layers=(Layer(attention, feed_forward),) * num_layers,
        placement=PostNorm(norm),
    )


def classifier_dropout(config: Any) -> float:
    """The dropout of a classification head: `classifier_dropout` where it is set, else the encoder's."""
    chosen = getattr(config, "classifier_dropout", None)
    return float(config.hidden_dropout_prob if chosen is None else chosen)


def normalized(config: Any) -> Any:
    """The config under the names that optimum gives to sizes, the same for every family."""
    from optimum.utils import NormalizedConfigManager

    return NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)


def hidden_activation(name: object) -> Activation:
    """Translates a config's activation name.

    Raises:
        ValueError: The name is not one of `HIDDEN_ACTIVATIONS`.
    """
    if not isinstance(name, str) or name not in HIDDEN_ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(HIDDEN_ACTIVATIONS)}")
    return HIDDEN_ACTIVATIONS[name]


def reject_unsupported(config: Any) -> None:
    """Raises ValueError for config fields that change the network in ways no description has words for."""
    reject_others(vars(config), {"position_embedding_type": "absolute", "is_decoder": False, "pruned_heads": {}})


def reject_others(fields: Mapping[str, Any], described: Mapping[str, object]) -> None:
    """Raises ValueError where a field of a config has another value than the one that is described; None is none."""
    for field, expected in described.items():
        value = fields.get(field)
        if value is not None and value != expected:
            raise ValueError(f"{field}={value!r} in the config; only {expected!r} is described")
