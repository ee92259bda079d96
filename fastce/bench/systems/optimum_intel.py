"""optimum-intel, as its users run it: OpenVINO behind transformers' interface."""

from __future__ import annotations

from typing import Any

from fastce.bench.systems.base import Task
from fastce.bench.systems.transformers import Transformers

TYPES = {"fp32": "f32", "bf16": "bf16"}


class OptimumIntel(Transformers):
    """`OVModelForSequenceClassification` on padded batches."""

    def prepare(self, task: Task) -> None:
        """See `Converter`."""
        from optimum.intel import OVModelForSequenceClassification

        OVModelForSequenceClassification.from_pretrained(task.model, export=True).save_pretrained(task.folder)

    def load_model(self, task: Task) -> Any:
        """The converted model."""
        from optimum.intel import OVModelForSequenceClassification

        options = {"INFERENCE_PRECISION_HINT": TYPES[task.precision], "INFERENCE_NUM_THREADS": task.threads}
        return OVModelForSequenceClassification.from_pretrained(task.folder, ov_config=options)
