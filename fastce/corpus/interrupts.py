"""What is said where somebody stops a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Somebody stopped the scoring; the message says what is kept and how to go on."""


@contextmanager
def interrupts_explained(kept: Callable[[], str]) -> Iterator[None]:
    """Says of an interrupt what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {kept()}") from None
