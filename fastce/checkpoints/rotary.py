"""Rotary embeddings as Hugging Face configs describe them: parameters to frequencies."""

from __future__ import annotations

from typing import Any

import torch

from fastce.spec import RotaryEmbedding

SCALED = ("linear", "llama3", "yarn")
"""Kinds of scaling whose frequencies are the same for every text; others change with its length."""


def rotary_embedding(config: Any, head_dim: int, kind: str | None = None) -> RotaryEmbedding:
    """Reads a config's `rope_parameters`.

    Args:
        config: A Hugging Face config.
        head_dim: Width of a head.
        kind: Which layers' parameters, where layers of several kinds have their own.

    Raises:
        ValueError: The scaling depends on the text's length, or nobody knows it.
    """
    parameters = config.rope_parameters if kind is None else config.rope_parameters[kind]
    rope_type = parameters.get("rope_type", "default")
    if rope_type == "default":
        rotated = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
        exponents = torch.arange(0, rotated, 2, dtype=torch.float32) / rotated
        frequencies, scale = 1.0 / (parameters["rope_theta"] ** exponents), 1.0
    elif rope_type in SCALED:
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        arguments = {} if kind is None else {"layer_type": kind}
        frequencies, scale = ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"), **arguments)
    else:
        raise ValueError(f"rope_type {rope_type!r} in the config is not one of default, {', '.join(SCALED)}")
    return RotaryEmbedding(tuple(frequencies.tolist()), float(scale))
