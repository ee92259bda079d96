"""(0) What a caller passes, checked and turned into two lists of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np


def split_pairs(inputs: Any) -> tuple[list[str], list[str], bool]:
    """Turns `predict`'s inputs into first texts and second texts.

    Args:
        inputs: One pair of texts, or any iterable of pairs: list, tuple, NumPy array, column of a dataset.

    Returns:
        The first texts, the second texts, and whether the input was a single pair.

    Raises:
        TypeError: Something is not a text or not a pair; the message says where.
        ValueError: A pair has not exactly two texts; the message says where.
    """
    if isinstance(inputs, np.ndarray):
        inputs = inputs.tolist()
    if isinstance(inputs, str | bytes | Mapping | Set) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs: expected a pair of texts or a list of pairs, got {describe(inputs)}")
    pairs = list(inputs)
    single = bool(pairs) and not any(map(is_sequence, pairs))
    if single:
        pairs = [pairs]
    for index, pair in enumerate(pairs):
        check_pair(pair, "inputs" if single else f"inputs[{index}]")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], single


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
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"{place}: expected a list of texts, got {describe(texts)}")
    found = texts.tolist() if isinstance(texts, np.ndarray) else list(texts)
    for index, text in enumerate(found):
        check_text(text, f"{place}[{index}]")
    return found


def check_text(text: Any, place: str) -> None:
    """Raises TypeError unless `text` is a str."""
    if not isinstance(text, str):
        raise TypeError(f"{place}: expected str, got {describe(text)}")


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


def check_number(value: Any, place: str) -> float:
    """Returns `value`, which may be a scalar of NumPy or PyTorch, as a number of Python.

    Raises:
        TypeError: It is no number.
    """
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if not isinstance(number, int | float):
        raise TypeError(f"{place}: expected a number, got {describe(value)}")
    return number


def check_positive(value: Any, place: str) -> int:
    """Returns `value` as an int.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{place}: expected a positive whole number, got {describe(value)}")
    if value < 1:
        raise ValueError(f"{place}: expected a positive whole number, got {value}")
    return int(value)


def is_sequence(value: Any) -> bool:
    """Whether a value can be a pair or a list of pairs, which a text can't."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes | bytearray)


def describe(value: Any) -> str:
    """A value for an error message: None as itself, others by type and, where short, by value."""
    if value is None:
        return "None"
    text = repr(value)
    return type(value).__name__ if len(text) > 40 else f"{type(value).__name__} {text}"
