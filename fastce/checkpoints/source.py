"""Where a model's files are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """Where a model comes from: what transformers' `from_pretrained` methods need to know.

    Attributes:
        name: Directory or Hub id.
        options: Keyword arguments common to config, tokenizer and weights.
    """

    name: str
    options: Mapping[str, Any]


def find_file(source: Source, file: str) -> str | None:
    """The path of one of a model's files, downloaded if it is on the Hub; None where there is none."""
    from transformers.utils import cached_file

    path: str | None = cached_file(
        source.name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
        **{key: value for key, value in source.options.items() if key != "trust_remote_code"},
    )
    return path


def read_json(source: Source, file: str) -> Any:
    """Reads an optional JSON file of a model; an empty dict where there is none.

    Raises:
        ValueError: The file is no JSON.
    """
    path = find_file(source, file)
    if path is None:
        return {}
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
