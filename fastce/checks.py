"""Single values that a caller passes, checked; errors name the place and the value."""

from __future__ import annotations

from collections.abc import Sequence
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
    "float8_e4m3fn": "fp8",
}
"""What torch calls them; int8 has one name."""


def check_text(text: Any, place: str) -> None:
    """Raises TypeError unless `text` is a str."""
    if not isinstance(text, str):
        raise TypeError(f"{place}: expected str, got {describe(text)}")


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


def check_precision(value: Any, place: str = "precision") -> Precision:
    """A precision by its own name or by torch's, such as `"bfloat16"` or `torch.bfloat16`.

    Raises:
        ValueError: There is no such precision.
    """
    name = str(value).lower().removeprefix("torch.")
    precision = PRECISION_OF_DTYPE.get(name, name)
    if precision not in PRECISIONS:
        raise ValueError(f"{place}: expected one of {', '.join(PRECISIONS)}, got {value!r}")
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


def describe(value: Any) -> str:
    """A value for an error message: None as itself, others by type and, where short, by value."""
    if value is None:
        return "None"
    text = repr(value)
    return type(value).__name__ if len(text) > 40 or "\n" in text else f"{type(value).__name__} {text}"
