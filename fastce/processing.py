"""`processing_kwargs`, with which a single call of sentence-transformers' CrossEncoder truncates otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastce.checkpoints.network import capped_length
from fastce.checks import check_positive, describe

PLACES = ("text", "common")
"""Where options for texts may stand; the later wins, as in sentence-transformers."""

TRUNCATIONS = (True, "longest_first")
"""The ways of truncation that a pair can be asked for: the longer text gives way."""


def max_length_of(processing_kwargs: Any, max_length: int, config: Any) -> int:
    """Tokens of a pair at most, in a call with these options.

    Args:
        processing_kwargs: None, or a dictionary such as `{"text": {"max_length": 128, "truncation": True}}`.
        max_length: The model's own.
        config: Its Hugging Face config, whose positions cap what is asked for.

    Raises:
        TypeError: An option is no dictionary where one belongs.
        ValueError: fastce does not have an option, or not this value; the message names it.
    """
    if processing_kwargs is None:
        return max_length
    if others := check_mapping(processing_kwargs, "processing_kwargs").keys() - set(PLACES):
        raise ValueError(f"processing_kwargs: expected {' or '.join(map(repr, PLACES))}, got {min(others)!r}")
    for place in PLACES:
        for name, value in check_mapping(processing_kwargs.get(place, {}), f"processing_kwargs[{place!r}]").items():
            where = f"processing_kwargs[{place!r}][{name!r}]"
            if name == "max_length":
                max_length = capped_length(check_positive(value, where), config)
            elif name != "truncation":
                raise ValueError(f"{where}: fastce has max_length and truncation")
            elif value not in TRUNCATIONS:
                raise ValueError(f"{where}: fastce truncates {TRUNCATIONS[1]!r}, not {value!r}")
    return max_length


def check_mapping(value: Any, place: str) -> Mapping[str, Any]:
    """Raises TypeError unless a value is a dictionary."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{place}: expected a dictionary, got {describe(value)}")
    return value
