"""transformers itself: the scores that all others are checked against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastce.bench.systems.base import Pair, Task

BATCH_SIZE = 32


class Transformers:
    """The Hugging Face module on padded batches, in order of the texts' lengths."""

    def load(self, task: Task) -> str:
        """See `System`."""
        from transformers import AutoTokenizer

        torch.set_num_threads(task.threads)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(task.model)
        self.model = self.load_model(task)
        self.max_length = task.max_length
        return f"batches of {BATCH_SIZE}, {task.threads} threads"

    def load_model(self, task: Task) -> Any:
        """The module in evaluation mode."""
        from transformers import AutoModelForSequenceClassification

        model: Any = AutoModelForSequenceClassification.from_pretrained(task.model, dtype=torch.float32)
        return model.eval().to(task.device)

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See `System`."""
        order = sorted(range(len(pairs)), key=lambda number: -len(pairs[number][0]) - len(pairs[number][1]))
        logits = np.empty((len(pairs), self.model.config.num_labels), dtype=np.float32)
        for start in range(0, len(order), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            first, second = zip(*(pairs[number] for number in chosen), strict=True)
            batch = self.tokenizer(
                list(first),
                list(second),
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.model.device)
            logits[chosen] = self.model(**batch).logits.cpu().numpy()
        return logits
