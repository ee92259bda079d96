"""Reads a described model's weights straight from its file, without making the Hugging Face module."""

from __future__ import annotations

from typing import Any

import torch

from fastce.checkpoints.network import FAMILIES, Description, Network
from fastce.checkpoints.source import Source, find_file


def read_network(source: Source, config: Any) -> Network | None:
    """Reads a network whose file holds exactly what its family expects.

    The tensors are views of the file, brought into memory as they are read.

    Args:
        source: Where the model is.
        config: Its Hugging Face config.

    Returns:
        The network, or None where only the Hugging Face module can tell what the checkpoint is: an unknown family,
        another file format, weights that are missing, left over, of another shape or no numbers.
    """
    from safetensors import SafetensorError, safe_open

    family = FAMILIES.get(config.model_type)
    path = find_file(source, "model.safetensors")
    if family is None or path is None:
        return None
    try:
        encoder, head = family.encoder(config), family.head(config)
        with safe_open(path, framework="pt") as file:
            names = family.parameter_names(encoder)
            stored, expected = set(file.keys()), set(names.values())
            if expected - stored or any(not key.startswith(family.unused) for key in stored - expected):
                return None
            weights = {ours: file.get_tensor(theirs) for ours, theirs in names.items()}
    except (ValueError, SafetensorError):
        return None
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    if shapes != family.parameter_shapes(encoder, head):
        return None
    weights = {name: weight.float() for name, weight in weights.items()}
    if not all(map(is_finite, weights.values())):
        return None
    return Network(None, Description(encoder, head, weights), "", file=path)


def is_finite(weight: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity, in one pass over it: both show in the extremes."""
    low, high = torch.aminmax(weight)
    return bool(torch.isfinite(low) & torch.isfinite(high))
