"""What the environment and the caller say about how to run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fastce.inputs import check_positive


def default_device() -> torch.device:
    """The best device at hand: CUDA, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


_chosen_num_threads: int | None = None


def set_num_threads(number: int | None) -> None:
    """Sets the CPU threads of all scoring from now on, but for models that were given a number of their own.

    Args:
        number: How many; None goes back to `FASTCE_NUM_THREADS`, else to all CPUs that the process may use.

    Raises:
        TypeError: `number` is no whole number.
        ValueError: `number` is less than 1.
    """
    global _chosen_num_threads
    _chosen_num_threads = None if number is None else check_positive(number, "number")


def default_num_threads() -> int | None:
    """Threads asked for by `set_num_threads` or `FASTCE_NUM_THREADS`; None leaves the number to the backend.

    Raises:
        ValueError: The variable is no positive whole number.
    """
    if _chosen_num_threads is not None:
        return _chosen_num_threads
    text = os.environ.get("FASTCE_NUM_THREADS")
    if text is None:
        return None
    if not text.isdecimal():
        raise ValueError(f"FASTCE_NUM_THREADS: expected a positive whole number, got {text!r}")
    return check_positive(int(text), "FASTCE_NUM_THREADS")


def cpu_features() -> list[str] | None:
    """Instruction-set extensions of this processor that the C++ module knows; None where the module was not built."""
    try:
        from fastce import _core
    except ImportError:
        return None
    return _core.cpu_features()


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Sets torch's number of threads for a while; None leaves it alone."""
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def progress_bar(show: bool | None, *, total: int | None, description: str, unit: str) -> Any:
    """A tqdm bar on stderr, to be used in a `with` statement.

    Args:
        show: Whether to show it; None shows it where fastce's logger is at INFO or below.
        total: Units of work; None where nobody knows.
        description: What is being done.
        unit: What is counted.
    """
    from tqdm.auto import tqdm

    if show is None:
        show = logging.getLogger("fastce").getEffectiveLevel() <= logging.INFO
    return tqdm(total=total, desc=description, unit=unit, disable=not show)
