"""(0) What a caller passes, checked and turned into two lists of texts."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, KeysView, Mapping, Set
from typing import Any

import numpy as np

from fastce.checks import check_text, describe, is_sequence

TABLE_REMEDY = (
    "iterating a table may give its columns; pass its rows, such as df[['first', 'second']].values.tolist() or "
    "list(zip(table['first'], table['second'])), or for texts one column, such as list(table['text'])"
)


def split_pairs(inputs: Any) -> tuple[list[str], list[str], bool]:
    """Turns `predict`'s inputs into first texts and second texts.

    Args:
        inputs: One pair of texts (a list, a tuple or a NumPy array), or any iterable of pairs that keeps their order.

    Returns:
        The first texts, the second texts, and whether the input was a single pair.

    Raises:
        TypeError: Something is not a text or not a pair; the message says where.
        ValueError: A pair has not exactly two texts; the message says where.
    """
    pairs = check_elements(inputs, "inputs", "a pair of texts or a list of pairs")
    single = is_single_pair(inputs)
    if single:
        pairs = [pairs]
    for index, pair in enumerate(pairs):
        check_pair(pair, "inputs" if single else f"inputs[{index}]")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], single


def is_single_pair(inputs: Any) -> bool:
    """Whether inputs are one pair: a list, a tuple or an array of texts rather than of pairs."""
    if not isinstance(inputs, list | tuple | np.ndarray):
        return False
    values = inputs.tolist() if isinstance(inputs, np.ndarray) else inputs
    return is_sequence(values) and not any(map(is_sequence, values)) and has_text(values)


def check_elements(values: Any, place: str, expected: str) -> list[Any]:
    """Turns an iterable into a list, if iterating gives its elements, in an order that means something.

    Args:
        values: What a caller passed.
        place: What it is called.
        expected: What it should be.

    Raises:
        TypeError: It is a text, a mapping, a set or a table, or nothing to iterate; the message says what helps.
    """
    if isinstance(values, np.ndarray):
        values = values.tolist()  # a text, of an array without dimensions
    remedy = None
    if isinstance(values, Mapping):
        remedy = "iterating gives its keys; pass list(x.values()), or list(x.items()) for pairs of key and value"
    elif isinstance(values, Set) and not isinstance(values, KeysView | ItemsView):  # a dict's have its order
        remedy = "its order means nothing; pass a list"
    elif hasattr(values, "columns") or hasattr(values, "column_names"):
        remedy = TABLE_REMEDY
    elif isinstance(values, str | bytes | bytearray | memoryview) or not isinstance(values, Iterable):
        remedy = ""
    if remedy is None:
        return list(values.to_pylist() if hasattr(values, "to_pylist") else values)  # Arrow iterates scalars of its own
    found = type(values).__name__ if remedy else describe(values)
    raise TypeError(f"{place}: expected {expected}, got {found}{': ' if remedy else ''}{remedy}")


def check_pair(pair: Any, place: str) -> None:
    """Raises TypeError or ValueError unless `pair` is a sequence of two texts."""
    if not is_sequence(pair):
        raise TypeError(f"{place}: expected a pair of texts, got {describe(pair)}")
    if len(pair) != 2:
        raise ValueError(f"{place}: expected 2 texts, got {len(pair)}")
    for position in (0, 1):
        if not isinstance(pair[position], str):
            raise TypeError(f"{place}[{position}]: expected str, got {describe(pair[position])}")


def check_texts(texts: Iterable[Any], place: str) -> list[str]:
    """Turns an iterable of texts into a list.

    Raises:
        TypeError: `texts` is a single text or holds something else than texts; the message says where.
    """
    found = check_elements(texts, place, "a list of texts")
    for index, text in enumerate(found):
        check_text(text, f"{place}[{index}]")
    return found


def choose_prompt(prompts: Mapping[str, str], prompt: str | None, name: str | None) -> str | None:
    """The text to put before each first text: a prompt itself, else the one of that name, else None.

    Raises:
        ValueError: There is none of that name.
    """
    if prompt is not None or name is None:
        return prompt
    if name not in prompts:
        raise ValueError(f"prompt_name: {name!r} is none of the model's prompts: {sorted(prompts)}")
    return prompts[name]


def has_text(values: Iterable[Any]) -> bool:
    """Whether there is a text among values."""
    return any(isinstance(value, str) for value in values)
