from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from fastce.bench.systems.base import Pair, Task


class Wrong:
    """Finite scores of the right shape that have nothing to do with the model."""

    def load(self, task: Task) -> str:
        return "a stub"

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        return np.arange(len(pairs), dtype=np.float32)[:, None]


class Broken(Wrong):
    def load(self, task: Task) -> str:
        raise ValueError("no such\narithmetic here")


class Dying(Wrong):
    def load(self, task: Task) -> str:
        os._exit(3)


class Converting(Wrong):
    """Fails where another process than the one that scores has not written its file."""

    def prepare(self, task: Task) -> None:
        (task.folder / "process").write_text(str(os.getpid()))

    def load(self, task: Task) -> str:
        assert (task.folder / "process").read_text() != str(os.getpid())
        return "converted"
