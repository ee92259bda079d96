"""How many CPU threads work: what the caller and the environment say, and torch's own number."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastce.checks import check_positive

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


def chosen_num_threads() -> int | None:
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


def usable_cpus() -> int:
    """CPUs that affinity and, where the C++ module is there to read them, the quotas of control groups leave."""
    try:
        from fastce import _core
    except ImportError:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _core.usable_cpus()


_threads_lock = threading.Lock()
_threads_before: list[int] = []


def start_afresh_after_fork() -> None:
    """Leaves torch one thread in a forked child: OpenMP's are gone, and an operation that counts on them never ends."""
    global _threads_lock
    _threads_lock = threading.Lock()  # another thread of the parent may have held it
    _threads_before.clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # where processes can be forked
    os.register_at_fork(after_in_child=start_afresh_after_fork)


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Sets torch's number of threads for a while; None leaves it alone.

    The number is the whole process's, so where several threads ask at once, the last one to leave sets it back.
    """
    if number is None:
        yield
        return
    with _threads_lock:
        _threads_before.append(torch.get_num_threads())
        torch.set_num_threads(number)
    try:
        yield
    finally:
        with _threads_lock:
            if len(_threads_before) == 1:
                torch.set_num_threads(_threads_before[0])
                _threads_before.clear()
            else:
                _threads_before.pop()
