"""Reads a described model's weights straight from its file, without making the Hugging Face module."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch

from fastce.checkpoints.chain import Chain, ModuleChain
from fastce.checkpoints.family import Family, Names, Place, places, stored_shapes
from fastce.checkpoints.fingerprint import Fingerprint
from fastce.checkpoints.network import FAMILIES, Description, Network, Stored
from fastce.checkpoints.source import Source, find_file, read_json


def read_network(source: Source, config: Any, chain: Chain | None) -> Network | None:
    """Reads a network whose file holds what its family expects; warns of what is left over.

    The embedding tables are in memory: engines keep them as they are, and the file may be written to. All else is views
    of the file, to be converted or copied.

    Args:
        source: Where the model is.
        config: Its Hugging Face config.
        chain: What follows the encoder, where that is not the head of a sequence-classification class.

    Returns:
        The network, or None where only the Hugging Face module can tell what the checkpoint is: an unknown family,
        classes of its own, another file format, weights that are missing, of another shape or no numbers.
    """
    from safetensors import SafetensorError, safe_open

    family = FAMILIES.get(config.model_type)
    path = find_file(source, "model.safetensors")
    if family is None or path is None or changes_weights(source, config):
        return None
    try:
        encoder = family.encoder(config)
        head = family.head(config) if chain is None else chain.head
        weights = {} if chain is None else chain.weights(source)
        prefix = "" if chain is None else f"{ModuleChain.BASE}."  # which the encoder's own file does not have
        with safe_open(path, framework="pt") as mapped, safe_open(path, framework="pt", backend="pread") as read:
            stored = {f"{prefix}{key}" for key in mapped.keys()}  # noqa: SIM118
            for names in names_in_files(family, chain, config):
                found = places(names, encoder, head)
                expected = stored_shapes(found, encoder, head)
                if not expected.keys() - stored - weights.keys():
                    break
            else:
                return None
            surplus = {key.removeprefix(prefix) for key in stored - expected.keys()}
            tables = {place.name for name, place in found.items() if name.startswith("embeddings.")}
            fingerprint = Fingerprint.of(path)
            for key in expected.keys() & stored:
                weights[key] = (read if key in tables else mapped).get_tensor(key.removeprefix(prefix))
            differences = {name: difference(weights[place.name], place) for name, place in found.items() if place.less}
    except (ValueError, SafetensorError):
        return None
    if {name: tuple(weight.shape) for name, weight in weights.items()} != expected:
        return None
    if any(not weight.is_floating_point() for weight in weights.values()):
        return None
    own = {place.name for name, place in found.items() if name not in differences}
    weights = {name: weights[name].float() for name in own}
    if not all(map(is_finite, (*weights.values(), *differences.values()))):
        return None
    ours = {
        name: Stored(differences[name]) if name in differences else Stored(weights[place.name], place.rows)
        for name, place in found.items()
    }
    warn_of_unused(source.name, (key for key in surplus if not key.startswith(family.unused)))
    return Network(None, Description(encoder, head, ours), file=fingerprint)


def difference(weight: torch.Tensor, place: Place) -> torch.Tensor:
    """The rows of a tensor, which may be as large as a vocabulary, less others, in float32."""
    rows = weight[place.rows].float()
    return rows - weight[place.less].float()


def names_in_files(family: Family, chain: Chain | None, config: Any) -> Iterator[Names]:
    """The names that a network's parts may have in its files."""
    if chain is None:
        yield from family.names_in_files()
        return
    names = [names for names in (family.names, family.file_names) if names is not None]
    yield from chain.names_in_files(names, config)


def changes_weights(source: Source, config: Any) -> bool:
    """Whether more than one file of weights and a class of transformers decides: own code, an adapter, quantisation."""
    return (
        brings_code(source, config)
        or getattr(config, "quantization_config", None) is not None
        or find_file(source, "adapter_config.json") is not None
    )


def brings_code(source: Source, config: Any) -> bool:
    """Whether a folder's own classes decide what it computes; only where they are trusted, else transformers' do."""
    return bool(source.options.get("trust_remote_code") and getattr(config, "auto_map", None))


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Reads all tensors of a safetensors file into memory."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", backend="pread") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def warn_of_unused(name: str, unused: Iterable[str]) -> None:
    """Warns of weights that a checkpoint has and its network does not."""
    if keys := sorted(unused):
        warnings.warn(f"{name}: the network has no place for these weights: {'; '.join(keys)}", stacklevel=2)


def weight_names(source: Source) -> list[str]:
    """The names of a model's weights; none where nobody can read them, which loading them reports."""
    from safetensors import SafetensorError, safe_open

    for file in ("model.safetensors", "pytorch_model.bin"):
        path = find_file(source, file)
        with suppress(SafetensorError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError):
            if path is None:
                names = read_json(source, f"{file}.index.json").get("weight_map", {})
            elif file.endswith(".safetensors"):
                with safe_open(path, framework="pt") as weights:
                    names = weights.keys()
            else:
                names = torch.load(path, weights_only=True, map_location="meta")
            if names:
                return list(names)
    return []


def is_finite(weight: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity, in one pass over it: both show in the extremes."""
    low, high = torch.aminmax(weight)
    return bool(torch.isfinite(low) & torch.isfinite(high))
