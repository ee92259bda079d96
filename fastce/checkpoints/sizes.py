"""Refuses configs that describe far more than a model's files hold, before memory or time is spent on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastce.checkpoints.source import Source, find_file, read_json

MOST_LABELS, MOST_LAYERS = 1_000_000, 1_000
"""More than any model has; a config that says more is broken."""

SMALLEST = 1_000_000
"""Bytes of weights below which nobody minds what a config asks for."""


def check_number_of_labels(source: Source) -> None:
    """Raises ValueError where a config claims labels without number, for each of which transformers makes a name."""
    config = read_json(source, "config.json")
    labels = config.get("num_labels") if isinstance(config, dict) else None
    if isinstance(labels, (int, float)) and labels > MOST_LABELS:
        raise ValueError(f"{source.name}: config.json: num_labels is {labels}, more than any head has")


def check_sizes(source: Source, config: Any) -> None:
    """Raises ValueError for a config whose largest tables and matrices the files can't hold.

    Where no weights are there, since they have not been downloaded yet or since there are none, nothing is known.
    """
    folder = Path(find_file(source, "config.json") or "").parent
    stored = sum(file.stat().st_size for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind))
    if stored == 0:
        return

    def size(*names: str) -> int:
        values = [getattr(config, name, None) for name in names]
        return next((value for value in values if isinstance(value, int)), 0)

    hidden = size("hidden_size")
    embedding = size("embedding_size") or hidden
    weights = {
        "vocab_size": size("vocab_size") * embedding,
        "hidden_size": hidden * hidden,
        "intermediate_size": size("intermediate_size", "hidden_dim") * hidden,
        "max_position_embeddings": size("max_position_embeddings") * embedding,
    }
    room = 2 * max(stored, SMALLEST)  # no format stores a weight in less than half a byte
    excessive = [name for name, count in weights.items() if count > room]
    if size("num_hidden_layers") > MOST_LAYERS:
        excessive.append("num_hidden_layers")
    if excessive:
        described = ", ".join(f"{name} is {getattr(config, name, None)}" for name in excessive)
        raise ValueError(f"{source.name}: config.json: {described}, more than {stored} bytes of weights can hold")
