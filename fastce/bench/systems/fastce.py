"""fastce itself, as its users run it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fastce.bench.systems.base import Pair, Task
from fastce.options import ModelOptions


class Fastce:
    """`CrossEncoder.predict` with the best backend there is."""

    def load(self, task: Task) -> str:
        """See `System`."""
        options = ModelOptions(
            task.model,
            device=task.device,
            precision=task.precision,
            max_length=task.max_length,
            num_threads=task.threads,
        )
        self.model = options.load(activation_fn=torch.nn.Identity())
        return f"backend {self.model.backend}"

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See `System`."""
        scores: np.ndarray = self.model.predict(list(pairs), show_progress_bar=False)
        return scores.reshape(len(pairs), -1)
