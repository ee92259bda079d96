"""(0) What a caller passes, checked and turned into two lists of texts."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, KeysView, Mapping, Sequence, Set
from typing import Any

import numpy as np

from fastce.spec import PRECISIONS, Precision

PRECISION_OF_DTYPE: dict[str, Precision] = {
    "float32": "fp32",
    "float": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "qint8": "int8",
}
"""What torch calls them; int8 has one name."""

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
    single = isinstance(inputs, list | tuple | np.ndarray) and not any(map(is_sequence, pairs)) and has_text(pairs)
    if single:
        pairs = [pairs]
    for index, pair in enumerate(pairs):
        check_pair(pair, "inputs" if single else f"inputs[{index}]")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], single


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


def check_precision(value: Any) -> Precision:
    """A precision by its own name or by torch's, such as `"bfloat16"` or `torch.bfloat16`.

    Raises:
        ValueError: There is no such precision.
    """
    name = str(value).lower().removeprefix("torch.")
    precision = PRECISION_OF_DTYPE.get(name, name)
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {value!r}")
    return precision


def check_function(value: Any, name: str) -> None:
    """Raises TypeError unless `value` is None or can be called, and is not a class, which would make an object."""
    if isinstance(value, type):
        raise TypeError(f"{name}: expected a function, got the class {value.__name__}; make an object of it")
    if value is not None and not callable(value):
        raise TypeError(f"{name}: expected a function, got {describe(value)}")


def is_sequence(value: Any) -> bool:
    """Whether a value can be a pair or a list of pairs, which a text can't."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes | bytearray)


def has_text(values: Iterable[Any]) -> bool:
    """Whether there is a text among values."""
    return any(isinstance(value, str) for value in values)


def describe(value: Any) -> str:
    """A value for an error message: None as itself, others by type and, where short, by value."""
    if value is None:
        return "None"
    text = repr(value)
    return type(value).__name__ if len(text) > 40 or "\n" in text else f"{type(value).__name__} {text}"
