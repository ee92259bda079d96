"""sentence-transformers, as its users run it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fastce.bench.systems.base import Pair, Task

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCH_SIZE = 32


class SentenceTransformers:
    """`CrossEncoder.predict` in batches of 32, its default."""

    def load(self, task: Task) -> str:
        """See `System`."""
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(task.threads)
        self.model = CrossEncoder(
            task.model,
            device=task.device,
            max_length=task.max_length,
            activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": DTYPES[task.precision]},
        )
        return f"batches of {BATCH_SIZE}, {task.threads} threads"

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See `System`."""
        scores: np.ndarray = self.model.predict(list(pairs), batch_size=BATCH_SIZE, show_progress_bar=False)
        return scores.reshape(len(pairs), -1)
