"""Progress bars on long work."""

from __future__ import annotations

import logging
from typing import Any


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
