"""What a family of models has to say about itself, and the names that all families are translated to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastce.spec import Activation, EncoderSpec, HeadSpec

HIDDEN_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Names in Hugging Face configs and what they compute; the three tanh forms are one formula."""


@dataclass(frozen=True)
class Family:
    """One family of models: how its config is read and where its weights are.

    Attributes:
        encoder: Reads the encoder's description from a Hugging Face config.
        head: Reads the head's description from a Hugging Face config.
        names: Our module names to those of the Hugging Face module; `{}` stands for the layer's number. Every module
            has a weight and, unless it is an embedding table, a bias.
        fresh: Prefixes of weights that a checkpoint may lack because fine-tuning creates them.
        unused: Prefixes of weights that a checkpoint may carry for other tasks.
    """

    encoder: Callable[[Any], EncoderSpec]
    head: Callable[[Any], HeadSpec]
    names: Mapping[str, str]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def parameter_names(self, spec: EncoderSpec) -> dict[str, str]:
        """Maps our parameter names to the Hugging Face module's, for all layers of `spec`."""
        absent = set()
        if spec.token_types == 0:
            absent.add("embeddings.token_type")
        if spec.embedding_size == spec.hidden_size:
            absent.add("embeddings.projection")
        found = {}
        for ours, theirs in self.names.items():
            if ours in absent:
                continue
            parts = ("weight",) if ours in EMBEDDING_TABLES else ("weight", "bias")
            for layer in range(spec.num_layers) if "{}" in ours else (0,):
                for part in parts:
                    found[f"{ours.format(layer)}.{part}"] = f"{theirs.format(layer)}.{part}"
        return found

    def parameter_shapes(self, spec: EncoderSpec, head: HeadSpec) -> dict[str, tuple[int, ...]]:
        """Maps our parameter names to their shapes, for all layers of `spec`."""
        hidden, inner, embedding = spec.hidden_size, spec.intermediate_size, spec.embedding_size
        weights = {
            "embeddings.word": (spec.vocab_size, embedding),
            "embeddings.position": (spec.max_positions, embedding),
            "embeddings.token_type": (spec.token_types, embedding),
            "embeddings.norm": (embedding,),
            "embeddings.projection": (hidden, embedding),
            "attention_norm": (hidden,),
            "intermediate": (inner, hidden),
            "output": (hidden, inner),
            "output_norm": (hidden,),
            "head.output": (head.num_labels, hidden),
        }
        shapes = {}
        for name in self.parameter_names(spec):
            module, _, part = name.rpartition(".")
            layer_free = module.split(".", 2)[2] if module.startswith("layers.") else module
            shape = weights.get(layer_free, (hidden, hidden))
            shapes[name] = shape if part == "weight" else shape[:1]
        return shapes


EMBEDDING_TABLES = frozenset({"embeddings.word", "embeddings.position", "embeddings.token_type"})


def bert_layer_names(prefix: str) -> dict[str, str]:
    """Names of the embeddings and layers of every family that descends from BERT's code.

    Args:
        prefix: Name of the encoder inside the classification module, such as `"bert"`.
    """
    layer = f"{prefix}.encoder.layer.{{}}"
    return {
        "embeddings.word": f"{prefix}.embeddings.word_embeddings",
        "embeddings.position": f"{prefix}.embeddings.position_embeddings",
        "embeddings.token_type": f"{prefix}.embeddings.token_type_embeddings",
        "embeddings.norm": f"{prefix}.embeddings.LayerNorm",
        "layers.{}.query": f"{layer}.attention.self.query",
        "layers.{}.key": f"{layer}.attention.self.key",
        "layers.{}.value": f"{layer}.attention.self.value",
        "layers.{}.attention_output": f"{layer}.attention.output.dense",
        "layers.{}.attention_norm": f"{layer}.attention.output.LayerNorm",
        "layers.{}.intermediate": f"{layer}.intermediate.dense",
        "layers.{}.output": f"{layer}.output.dense",
        "layers.{}.output_norm": f"{layer}.output.LayerNorm",
    }


def bert_encoder_spec(config: Any, **changes: Any) -> EncoderSpec:
    """Reads the config fields that BERT and its descendants share.

    Args:
        config: A Hugging Face config.
        **changes: Fields of `EncoderSpec` in which the family differs from BERT.

    Raises:
        ValueError: The config asks for something that `EncoderSpec` has no words for.
    """
    reject_unsupported(config)
    sizes = normalized(config)
    fields: dict[str, Any] = {
        "num_layers": sizes.num_layers,
        "num_heads": sizes.num_attention_heads,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": config.intermediate_size,
        "embedding_size": sizes.hidden_size,
        "vocab_size": sizes.vocab_size,
        "max_positions": config.max_position_embeddings,
        "token_types": config.type_vocab_size,
        "activation": hidden_activation(config.hidden_act),
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_dropout": config.hidden_dropout_prob,
        "attention_dropout": config.attention_probs_dropout_prob,
    }
    return EncoderSpec(**(fields | changes))


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
    """Raises ValueError for config fields that change the network in ways no spec describes."""
    plain: dict[str, object] = {"position_embedding_type": "absolute", "is_decoder": False, "pruned_heads": {}}
    for field, expected in plain.items():
        value = getattr(config, field, expected)
        if value != expected and value is not None:
            raise ValueError(f"{field}={value!r} in the config; only {expected!r} is described")
