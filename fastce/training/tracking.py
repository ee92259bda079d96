"""Where training reports its loss and learning rate."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol


class Tracker(Protocol):
    """Receives values by name."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Takes the values of one step."""
        ...

    def close(self) -> None:
        """Writes what has not been written yet."""
        ...


class NoTracker:
    """Keeps nothing."""

    def log(self, values: dict[str, float], step: int) -> None:
        """See `Tracker`."""

    def close(self) -> None:
        """See `Tracker`."""


class TensorBoardTracker:
    """Writes event files for TensorBoard, into `runs/` as is usual there."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter()

    def log(self, values: dict[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WandbTracker:
    """Logs to the running wandb run, or to a new one."""

    def __init__(self) -> None:
        wandb = import_module("wandb")

        self._run: Any = wandb.run or wandb.init()

    def log(self, values: dict[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """See `Tracker`. The run stays open: it may be the caller's."""


TRACKERS: dict[str, Callable[[], Tracker]] = {
    "none": NoTracker,
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
}
"""Names for `report_to`."""


def make_tracker(name: str) -> Tracker:
    """Makes a tracker by its name.

    Raises:
        ValueError: There is no such tracker.
        ImportError: Its package is not installed; the message says how to install it.
    """
    if name not in TRACKERS:
        raise ValueError(f"report_to: expected one of {', '.join(TRACKERS)}, got {name!r}")
    try:
        return TRACKERS[name]()
    except ImportError as error:
        raise ImportError(f"report_to={name!r} needs a package: pip install {name}") from error
