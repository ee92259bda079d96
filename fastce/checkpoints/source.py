"""Where a model's files are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def errors_of_files(
    name: str, files: str = "the model's files", *, but: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Makes one family of what the parsers behind a model's files raise: ValueError and OSError, with the model's name.

    They raise whatever they stumble over. What is missing in the installation stays an ImportError, what a device can't
    do a RuntimeError.

    Args:
        name: The model.
        files: Which of its files are read.
        but: What is raised as it is, besides.
    """
    try:
        yield
    except Exception as error:
        is_meant = isinstance(error, (ImportError, RuntimeError, *but)) and not isinstance(error, RecursionError)
        if is_meant or (isinstance(error, (ValueError, OSError)) and name in str(error)):
            raise
        what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(f"{name}: {files} are missing or broken ({what})") from error


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
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
