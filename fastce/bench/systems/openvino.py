"""OpenVINO, tuned: a stream for each core, small batches in order of length, NNCF's int8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastce.bench.systems.base import Task
from fastce.bench.systems.converted import ConvertedSystem, Engine, Inputs, PairEncoder, Settings, classifier

CALIBRATION_PAIRS = 300
TYPES = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("bf16", "f32")}
"""Types of what is not int8, for `INFERENCE_PRECISION_HINT`."""


class OpenVino(ConvertedSystem):
    """The torch module, converted with dynamic shapes."""

    def convert(self, task: Task, encoder: PairEncoder) -> None:
        """Converts, and quantises where int8 is asked for: NNCF's scheme for transformers, 300 pairs to calibrate."""
        import openvino
        import torch

        example = {
            name: torch.from_numpy(array) for name, array in encoder.pad(encoder.encode(task.sample[:2])).items()
        }
        model = openvino.convert_model(classifier(task.model), example_input=example)
        if task.precision == "int8":
            import nncf

            pairs = [encoder.pad([encoding]) for encoding in encoder.encode(task.sample[:CALIBRATION_PAIRS])]
            model = nncf.quantize(
                model,
                nncf.Dataset(pairs),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(pairs),
            )
        openvino.save_model(model, model_file(task), compress_to_fp16=False)

    def variants(self, task: Task) -> Sequence[str]:
        """Types that the processor has."""
        import openvino

        known = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        types = [kind for kind in TYPES[task.precision] if kind == "f32" or kind.upper() in known]
        if not types:
            raise ValueError(f"OpenVINO has no {task.precision} on this processor")
        return types

    def open(self, task: Task, settings: Settings) -> Engine:
        """Compiles the model with a request for each stream."""
        import openvino

        compiled = openvino.Core().compile_model(
            model_file(task),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": settings.variant,
                "NUM_STREAMS": settings.workers,
                "INFERENCE_NUM_THREADS": settings.workers * settings.threads,
            },
        )
        queue = openvino.AsyncInferQueue(compiled, settings.workers)

        def run(batches: Iterable[Inputs]) -> list[np.ndarray]:
            outputs: dict[int, np.ndarray] = {}

            def keep(request: Any, number: int) -> None:
                outputs[number] = request.get_output_tensor().data.copy()

            queue.set_callback(keep)
            for number, batch in enumerate(batches):
                queue.start_async(batch, number)
            queue.wait_all()
            return [outputs[number] for number in range(len(outputs))]

        return run


def model_file(task: Task) -> Path:
    """Where the converted model is."""
    return task.folder / "model.xml"
