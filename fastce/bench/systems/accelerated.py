"""sentence-transformers' own class with fastce's engine in it."""

from __future__ import annotations

from dataclasses import replace

from fastce.bench.systems.base import Task
from fastce.bench.systems.sentence_transformers import SentenceTransformers


class Accelerated(SentenceTransformers):
    """`fastce.accelerate` of a sentence-transformers CrossEncoder, and its `predict`."""

    def load(self, task: Task) -> str:
        """See `System`."""
        from fastce import accelerate

        super().load(replace(task, precision="fp32"))
        accelerate(self.model, precision=task.precision, num_threads=task.threads)
        return f"{task.threads} threads"
