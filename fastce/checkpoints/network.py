"""A loaded Hugging Face module, and what fastce understands of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from fastce.checkpoints import bert, distilbert, electra, roberta
from fastce.checkpoints.adapters import LowRankUpdate, base_module, plain_parameters
from fastce.checkpoints.family import Family
from fastce.spec import EncoderSpec, HeadSpec, PositionScheme

FAMILIES: dict[str, Family] = {
    "bert": bert.FAMILY,
    "roberta": roberta.FAMILY,
    "xlm-roberta": roberta.FAMILY,
    "camembert": roberta.FAMILY,
    "distilbert": distilbert.FAMILY,
    "electra": electra.FAMILY,
}
"""Config `model_type` to its family. A new family is a file beside this one and a row here."""


NO_LENGTH_LIMIT = 10**9
"""Tokenizers without a limit of their own report one beyond this."""


@dataclass(frozen=True)
class Description:
    """The network in fastce's own words.

    Attributes:
        encoder: The encoder.
        head: The classification head.
        weights: Our parameter names to float32 tensors: the module's own parameters, live, so that what training
            changes, changes here; or, without a module, the file's.
        updates: What LoRA adds to matrices, under the same names; live as well. Empty where the module is for scoring.
    """

    encoder: EncoderSpec
    head: HeadSpec
    weights: Mapping[str, torch.Tensor]
    updates: Mapping[str, Sequence[LowRankUpdate]] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """What a backend builds from.

    Attributes:
        module: The Hugging Face module with its float32 parameters; None where the weights come from the file.
        description: The network in fastce's words, or None where it has none.
        objection: Why `description` is None, else an empty string.
        file: Where the weights were read from without a module, else None.
        tokenizer: The model's tokenizer, for backends that pad; None where nobody knows it.
    """

    module: torch.nn.Module | None
    description: Description | None
    objection: str
    file: str | None = None
    tokenizer: Any = None

    @property
    def positions(self) -> PositionScheme:
        """How the network counts positions. A module that fastce can't describe counts for itself."""
        return PositionScheme() if self.description is None else self.description.encoder.positions


def describe(module: Any) -> Network:
    """Describes a Hugging Face sequence-classification module; never fails, an objection says what is unknown."""
    config = module.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        return Network(module, None, f"model type {config.model_type!r} is none of {', '.join(FAMILIES)}")
    try:
        encoder, head = family.encoder(config), family.head(config)
        parameters, updates = plain_parameters(module)
    except ValueError as error:
        return Network(module, None, str(error))
    names = family.parameter_names(encoder)
    unknown = sorted(parameters.keys() - names.values())
    missing = sorted(names.values() - parameters.keys())
    if unknown or missing:
        words = [f"{what} {', '.join(found)}" for what, found in (("lacks", missing), ("has also", unknown)) if found]
        return Network(module, None, f"the {config.model_type} module {' and '.join(words)}")
    weights = {ours: parameters[theirs] for ours, theirs in names.items()}
    ours_updates = {ours: updates[theirs] for ours, theirs in names.items() if theirs in updates}
    return Network(module, Description(encoder, head, weights, ours_updates), "")


def head_names(module: Any) -> list[str]:
    """Names of the parts of a sequence-classification module that turn a first token into logits."""
    module = base_module(module)
    family = FAMILIES.get(module.config.model_type)
    if family is not None:
        return [family.names[name] for name in ("head.dense", "head.output")]
    parts = module.named_children()
    return [name for name, part in parts if name != module.base_model_prefix and any(True for _ in part.parameters())]


def capped_length(length: int, config: Any) -> int:
    """Caps a maximum length by the model's positions, with a warning where a tokenizer's or a user's wish is cut.

    Args:
        length: Tokens; the huge number by which tokenizers say that they know no limit is cut silently.
        config: The Hugging Face config.
    """
    family = FAMILIES.get(config.model_type)
    limit = getattr(config, "max_position_embeddings", None)
    if family is not None:
        with suppress(ValueError):  # a config that its family can't describe
            limit = family.encoder(config).max_length
    if limit is None or limit < 1 or length <= limit:  # XLNet's config says -1
        return length
    if length < NO_LENGTH_LIMIT:
        warnings.warn(
            f"max_length {length} is more than the {limit} positions of the model; using {limit}", stacklevel=4
        )
    return int(limit)
