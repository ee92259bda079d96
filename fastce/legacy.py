"""The older names and orders of arguments that scripts for sentence-transformers still use."""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, cast

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

CONSTRUCTOR_NAMES = {
    "model_name": "model_name_or_path",
    "automodel_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "tokenizer_kwargs": "processor_kwargs",
    "config_args": "config_kwargs",
    "cache_dir": "cache_folder",
    "default_activation_function": "activation_fn",
}
CONSTRUCTOR_ORDER = ("num_labels", "max_length", "device", "processor_kwargs", "model_kwargs", "activation_fn")
"""Positional arguments behind the model's name in 2.2."""
CONSTRUCTOR_ORDER_4 = ("num_labels", "max_length", "activation_fn", "device")
"""The same from 4.0 to 5.3; told apart by a callable in the third place."""

PREDICT_NAMES = {"sentences": "inputs", "activation_fct": "activation_fn"}
PREDICT_WITHOUT_EFFECT = ("num_workers",)
PREDICT_PLACES: dict[int, tuple[type, str]] = {2: (int, "batch_size")}
"""Positional arguments of 2.2, self being 0: a value of this type in this place is that argument."""
RANK_NAMES = {"activation_fct": "activation_fn"}
RANK_WITHOUT_EFFECT = ("num_workers", "apply_softmax", "convert_to_numpy", "convert_to_tensor")


MEANT = {"dtype": "precision", "torch_dtype": "precision", "threads": "num_threads", "activation": "activation_fn"}
"""What people call arguments that are spelt otherwise."""


def constructor_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Lets `CrossEncoder.__init__` take every older name and the older positional orders."""
    known = [*argument_names(function), "classifier_dropout"]

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> R:
        order = CONSTRUCTOR_ORDER_4 if len(args) > 3 and callable(args[3]) else CONSTRUCTOR_ORDER
        if len(args) > 1 + len(order):
            raise TypeError(f"CrossEncoder takes at most {1 + len(order)} positional arguments, got {len(args)}")
        for name, value in zip(order, args[1:], strict=False):
            deprecated(f"CrossEncoder: pass {name} by name", stacklevel=2)
            if name in kwargs:
                raise TypeError(f"CrossEncoder: got {name} twice")
            kwargs[name] = value
        kwargs = rename(kwargs, CONSTRUCTOR_NAMES, "CrossEncoder")
        check_names(kwargs, known, "CrossEncoder")
        if "classifier_dropout" in kwargs:
            dropout = kwargs.pop("classifier_dropout")
            deprecated(
                "CrossEncoder: classifier_dropout is now config_kwargs={'classifier_dropout': ...}", stacklevel=3
            )
            if dropout is not None:
                kwargs["config_kwargs"] = {**(kwargs.get("config_kwargs") or {}), "classifier_dropout": dropout}
        return function(self, *args[:1], **kwargs)

    return cast(Callable[P, R], wrapper)


def method_arguments(
    names: dict[str, str], without_effect: Sequence[str], places: Mapping[int, tuple[type, str]] = MappingProxyType({})
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a method take older names, and some that no longer do anything.

    Args:
        names: Older to current names.
        without_effect: Names that are accepted and dropped.
        places: Last positional arguments that were others once: place to type and name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = argument_names(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> R:
            kind, place_name = places.get(len(args) - 1, (None, ""))
            if kind is not None and isinstance(args[-1], kind):
                deprecated(f"{function.__name__}: pass {place_name} by name", stacklevel=2)
                kwargs[place_name], args = args[-1], args[:-1]
            for name in without_effect:
                if name in kwargs:
                    del kwargs[name]
                    deprecated(f"{function.__name__}: {name} has no effect", stacklevel=2)
            kwargs = rename(kwargs, names, function.__name__)
            check_names(kwargs, known, function.__name__)
            return function(*args, **kwargs)

        return cast(Callable[P, R], wrapper)

    return decorate


def rename(kwargs: dict[str, Any], names: dict[str, str], where: str) -> dict[str, Any]:
    """Gives keyword arguments their current names, with one DeprecationWarning each.

    Raises:
        TypeError: An argument came under its older and its current name.
    """
    renamed = {}
    for name, value in kwargs.items():
        current = names.get(name, name)
        if current != name:
            deprecated(f"{where}: {name} is now called {current}", stacklevel=3)
        if current in renamed:
            raise TypeError(f"{where}: got {current} twice, once as an older name")
        renamed[current] = value
    return renamed


def argument_names(function: Callable[..., Any]) -> list[str]:
    """The names of a method's arguments."""
    return list(inspect.signature(function).parameters)[1:]


def check_names(given: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raises TypeError for an argument that a function does not have, with the one that may have been meant.

    Args:
        given: Names of the arguments.
        known: Names of the function's.
        where: What the function is called.
    """
    for name in given:
        if name not in known:
            meant = MEANT.get(name) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
            hint = f"did you mean {meant}?" if meant in known else f"it has {', '.join(known)}"
            raise TypeError(f"{where}: it has no argument {name!r}; {hint}")


def deprecated(message: str, *, stacklevel: int) -> None:
    """Warns at the caller's line, and logs it once, since Python shows such warnings of a program's own lines only."""
    log_once(message)
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)


@functools.cache
def log_once(message: str) -> None:
    """Logs a message the first time."""
    logger.warning("%s", message)
