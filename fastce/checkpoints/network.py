"""A model's network, and what fastce understands of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fastce.checkpoints import (
    albert,
    bert,
    deberta,
    distilbert,
    electra,
    gte,
    llama,
    modernbert,
    mpnet,
    qwen2,
    qwen3,
    roberta,
)
from fastce.checkpoints.adapters import LowRankUpdate, base_module, plain_parts
from fastce.checkpoints.chain import ModuleChain
from fastce.checkpoints.family import Family, Names, places
from fastce.checkpoints.fingerprint import Fingerprint
from fastce.checkpoints.untouched import interference, own_code, replaced_part
from fastce.spec import AbsolutePositions, EncoderSpec, HeadSpec

FAMILIES: dict[str, Family] = {
    "bert": bert.FAMILY,
    "roberta": roberta.FAMILY,
    "xlm-roberta": roberta.FAMILY,
    "camembert": roberta.FAMILY,
    "distilbert": distilbert.FAMILY,
    "electra": electra.FAMILY,
    "modernbert": modernbert.FAMILY,
    "deberta-v2": deberta.FAMILY,
    "mpnet": mpnet.FAMILY,
    "albert": albert.FAMILY,
    "gte": gte.FAMILY,
    "qwen3": qwen3.FAMILY,
    "qwen2": qwen2.FAMILY,
    "llama": llama.FAMILY,
}
"""Config `model_type` to its family. A new family is a file beside this one and a row here."""

OLDER_CONFIGS: dict[str, Callable[[Mapping[str, Any]], Any]] = {"new": gte.config_of_older_files}
"""The `model_type` of files that bring their own code to what reads their config as one of transformers' classes."""

NO_LENGTH_LIMIT = 10**9
"""Tokenizers without a limit of their own report one beyond this."""


class Stored(NamedTuple):
    """A parameter where it lies.

    Attributes:
        whole: The tensor that holds it: the module's own, live, so that what training changes, changes here; or,
            without a module, the file's.
        rows: Which of its rows, where others are stacked with it; None: all.
        updates: What LoRA adds to the whole; live as well. Empty where the module is for scoring.
        less: Rows that are subtracted from these, or None.
    """

    whole: torch.Tensor
    rows: slice | None = None
    updates: Sequence[LowRankUpdate] = ()
    less: slice | None = None

    @property
    def tensor(self) -> torch.Tensor:
        """The parameter as it is now; rows are a view, differences are not, and in float32 at least."""
        rows = self.whole if self.rows is None else self.whole[self.rows]
        if self.less is None:
            return rows
        dtype = torch.promote_types(self.whole.dtype, torch.float32)
        return rows.to(dtype) - self.whole[self.less].to(dtype)

    @property
    def num_rows(self) -> int:
        """Its rows."""
        return len(self.whole) if self.rows is None else int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Description:
    """The network in fastce's own words.

    Attributes:
        encoder: The encoder.
        head: The head.
        weights: Our parameter names to float32 parameters.
    """

    encoder: EncoderSpec
    head: HeadSpec
    weights: Mapping[str, Stored]


@dataclass(frozen=True)
class Network:
    """What a backend builds from.

    Attributes:
        module: The Hugging Face module with its float32 parameters; None where the weights come from the file.
        understood: The network in fastce's words, or why it has none.
        file: Where the weights were read from without a module, else None.
        tokenizer: The model's tokenizer, for backends that pad; None where nobody knows it.
    """

    module: torch.nn.Module | None
    understood: Description | str
    file: Fingerprint | None = None
    tokenizer: Any = None

    @property
    def description(self) -> Description:
        """The network in fastce's words.

        Raises:
            ValueError: It has none.
        """
        if isinstance(self.understood, str):
            raise ValueError(self.understood)
        return self.understood

    @property
    def positions(self) -> AbsolutePositions | None:
        """How the network counts positions; None from 0 on. A module that fastce can't describe counts for itself."""
        return None if isinstance(self.understood, str) else self.understood.encoder.embeddings.positions


def network_of(module: Any) -> Network:
    """Describes a Hugging Face sequence-classification module; never fails, a sentence says what is unknown."""
    try:
        return Network(module, description_of(module))
    except ValueError as error:
        return Network(module, str(error))


def description_of(module: Any) -> Description:
    """Describes a Hugging Face sequence-classification module.

    Raises:
        ValueError: fastce does not know it; the message says what is unknown.
    """
    family = family_of(base_module(module).config)
    if objection := own_code(base_module(module)) or interference(module):
        raise ValueError(f"{objection}, so that only itself can say what it computes")
    encoder, head, names = outline(family, module)
    found = places(names, encoder, head)
    parts, updates = plain_parts(module)
    parameters = {
        f"{name}.{own}" if name else own: parameter
        for name, part in parts.items()
        for own, parameter in part.named_parameters(recurse=False)
    }
    expected = {place.name for place in found.values()}
    unknown = sorted(name for name in parameters.keys() - expected if not is_unused(module, name, family))
    missing = sorted(expected - parameters.keys())
    if unknown or missing:
        words = [f"{what} {', '.join(names)}" for what, names in (("lacks", missing), ("has also", unknown)) if names]
        raise ValueError(f"the {base_module(module).config.model_type} module {' and '.join(words)}")
    if replaced := replaced_part(base_module(module), parts):
        raise ValueError(replaced)
    weights = {
        ours: Stored(parameters[place.name], place.rows, updates.get(place.name, ()), place.less)
        for ours, place in found.items()
    }
    return Description(encoder, head, weights)


def outline(family: Family, module: Any) -> tuple[EncoderSpec, HeadSpec, Names]:
    """The encoder, the head and the names of a module's parts."""
    base = base_module(module)
    if isinstance(base, ModuleChain):
        return family.encoder(base.config), base.head, base.part_names(family.names)
    return family.encoder(base.config), family.head(base.config), family.classifier_names


def is_unused(module: Any, name: str, family: Family) -> bool:
    """Whether a chain's parameter is one that its encoder carries for other tasks."""
    return isinstance(base_module(module), ModuleChain) and name.removeprefix(f"{ModuleChain.BASE}.").startswith(
        family.unused
    )


def family_of(config: Any) -> Family:
    """The family that a config belongs to.

    Raises:
        ValueError: fastce has none of that name.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(f"model type {config.model_type!r} is none of {', '.join(FAMILIES)}")
    return family


def head_names(module: Any) -> list[str]:
    """Names of the parts of a sequence-classification module that turn a pair's row into logits."""
    module = base_module(module)
    if isinstance(module, ModuleChain):
        return [ModuleChain.CHAIN] if len(module.chain) > 0 else []
    family = FAMILIES.get(module.config.model_type)
    if family is not None and not own_code(module):
        # Whole parts where they are the head's alone: PEFT saves `classifier` whole by itself, and would wrap a part
        # within it twice.
        within = f"{module.base_model_prefix}."
        return sorted({name if name.startswith(within) else name.partition(".")[0] for name in family.head_names})
    parts = module.named_children()
    return [name for name, part in parts if name != module.base_model_prefix and any(True for _ in part.parameters())]


def length_limit(tokenizer: Any) -> int:
    """The `model_max_length` of a tokenizer. Its file may hold it as a float; no limit is 1e30, or infinity.

    Raises:
        ValueError: It is no number of tokens.
    """
    limit = tokenizer.model_max_length
    if isinstance(limit, (int, float)) and not isinstance(limit, bool):
        if limit >= NO_LENGTH_LIMIT:
            return NO_LENGTH_LIMIT
        if limit >= 1 and limit == int(limit):
            return int(limit)
    raise ValueError(f"the tokenizer's model_max_length: expected a positive whole number, got {limit!r}")


def capped_length(length: int, config: Any, *, warn: bool = True) -> int:
    """Caps a maximum length by the model's positions, with a warning where a tokenizer's or a user's wish is cut.

    Args:
        length: Tokens; the huge number by which tokenizers say that they know no limit is cut silently.
        config: The Hugging Face config.
        warn: Whether to warn.
    """
    limit = getattr(config, "max_position_embeddings", None)
    with suppress(ValueError):  # another family, or a config that it can't describe
        limit = family_of(config).encoder(config).max_length
    if limit is None or limit < 1 or length <= limit:  # XLNet's config says -1
        return length
    if warn and length < NO_LENGTH_LIMIT:
        warnings.warn(
            f"max_length {length} is more than the {limit} positions of the model; using {limit}", stacklevel=4
        )
    return int(limit)


def default_length(tokenizer: Any, config: Any) -> int:
    """Tokens of a pair where nobody says how many: the tokenizer's, or fewer where the model is made for fewer.

    A limit beyond a table of positions is left to warn of; tokenizers of models without one are often shared by longer
    and shorter ones.
    """
    length = length_limit(tokenizer)
    with suppress(ValueError):
        if family_of(config).encoder(config).embeddings.positions is None:
            return capped_length(length, config, warn=False)
    return length
