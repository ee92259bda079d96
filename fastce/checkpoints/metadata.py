"""What sentence-transformers stores beside a model: its activation function, its prompts, its modules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastce.checkpoints.source import Source, read_json
from fastce.version import __version__

FILE = "config_sentence_transformers.json"


@dataclass(frozen=True)
class Metadata:
    """The stored facts.

    Attributes:
        activation_fn: Path of the activation function's class, or None.
        prompts: Prompt names to texts.
        default_prompt_name: The prompt to use where none is asked for.
        modules: The modules that sentence-transformers makes the model of, where they are more than one.
    """

    activation_fn: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    modules: Sequence[dict[str, Any]] = ()


def read_metadata(source: Source, config: Any) -> Metadata:
    """Reads the metadata of a model, wherever its version of sentence-transformers put it.

    Args:
        source: Where the model is.
        config: The model's Hugging Face config; the fields of older versions are in it.
    """
    stored = read_json(source, FILE)
    if not isinstance(stored, dict):
        raise ValueError(f"{source.name}: {FILE}: expected an object, got {type(stored).__name__}")
    is_cross_encoder = stored.get("model_type") == "CrossEncoder"
    places = (
        stored.get("activation_fn") if is_cross_encoder else None,
        (getattr(config, "sentence_transformers", None) or {}).get("activation_fn"),
        getattr(config, "sbert_ce_default_activation_function", None),
    )
    texts = [*(stored.get("prompts") or {}).values()] if is_cross_encoder else []
    name = stored.get("default_prompt_name") if is_cross_encoder else None
    if not all(isinstance(text, str) for text in (*texts, "" if name is None else name)):
        raise ValueError(f"{source.name}: {FILE}: a prompt or the name of one is no text")
    modules = read_json(source, "modules.json") if is_cross_encoder else []
    return Metadata(
        activation_fn=next((path for path in places if path), None),
        prompts=stored.get("prompts") or {} if is_cross_encoder else {},
        default_prompt_name=name,
        modules=modules if len(modules) > 1 else (),
    )


def write_metadata(directory: Path, metadata: Metadata) -> None:
    """Writes the metadata where every reader looks: sentence-transformers from 5.4 on, before it, and before 4.0.

    Args:
        directory: A saved model, with its config.json.
        metadata: What to write.
    """
    import torch
    import transformers

    versions = {"fastce": __version__, "transformers": transformers.__version__, "pytorch": torch.__version__}
    stored = {
        "model_type": "CrossEncoder",
        "__version__": versions,
        "prompts": dict(metadata.prompts),
        "default_prompt_name": metadata.default_prompt_name,
    }
    config_file = directory / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config.pop("sbert_ce_default_activation_function", None)
    config.pop("sentence_transformers", None)
    if metadata.activation_fn is not None:
        stored["activation_fn"] = metadata.activation_fn
        config["sbert_ce_default_activation_function"] = metadata.activation_fn
        config["sentence_transformers"] = {"activation_fn": metadata.activation_fn}
    for file, content in ((directory / FILE, stored), (config_file, config)):
        file.write_text(json.dumps(content, indent=2, sort_keys=False) + "\n", encoding="utf-8")
