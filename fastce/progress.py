"""Progress bars on long work."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notebook without widgets: tqdm warns, once, and then writes text
    from tqdm.auto import tqdm

PATIENCE = 2.0
"""Seconds of work in a notebook after which a bar is shown that nobody has asked for."""


def progress_bar(show: bool | None, *, total: int | None, description: str, unit: str) -> Any:
    """A tqdm bar, to be used in a `with` statement: a widget in notebooks that can show one, else text on stderr.

    Args:
        show: Whether to show it; None shows it where fastce's logger is at INFO or below, and in notebooks on work that
            takes longer than two seconds.
        total: Units of work; None where nobody knows.
        description: What is being done.
        unit: What is counted.
    """
    is_shown = logging.getLogger("fastce").getEffectiveLevel() <= logging.INFO if show is None else show
    waits = show is None and not is_shown and in_notebook()
    delay = PATIENCE if waits else 0
    return tqdm(total=total, desc=description, unit=unit, disable=not (is_shown or waits), delay=delay)


def in_notebook() -> bool:
    """Whether this program runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
