"""ONNX Runtime, tuned: its BERT optimiser, per-channel dynamic int8, batches in order of length."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastce.bench.systems.base import Task
from fastce.bench.systems.converted import (
    ConvertedSystem,
    Engine,
    Inputs,
    PairEncoder,
    Settings,
    classifier,
    in_threads,
)

OPSET = 17


class OnnxRuntime(ConvertedSystem):
    """The torch module, exported with dynamic shapes and fused."""

    def convert(self, task: Task, encoder: PairEncoder) -> None:
        """Exports, fuses, and quantises where int8 is asked for."""
        import torch
        from onnxruntime.transformers.optimizer import optimize_model

        module = classifier(task.model)
        example = encoder.pad(encoder.encode(task.sample[:2]))
        exported = task.folder / "exported.onnx"
        with warnings.catch_warnings():
            # The optimiser knows the graphs of this exporter, not those of its successor.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                module,
                kwargs={name: torch.from_numpy(array) for name, array in example.items()},
                f=str(exported),
                input_names=list(example),
                output_names=["logits"],
                dynamic_axes={name: {0: "pairs", 1: "tokens"} for name in example},
                opset_version=OPSET,
                dynamo=False,
            )
        # The sizes are read from the graph where the config calls them something else.
        optimized = optimize_model(
            str(exported),
            model_type="bert",
            num_heads=getattr(module.config, "num_attention_heads", 0),
            hidden_size=getattr(module.config, "hidden_size", 0),
            opt_level=1,
        )
        optimized.save_model_to_file(str(model_file(task)), use_external_data_format=needs_external_data(exported))
        if task.precision == "int8":
            quantize(model_file(task))

    def variants(self, task: Task) -> Sequence[str]:
        """Nothing else to choose."""
        return [""]

    def open(self, task: Task, settings: Settings) -> Engine:
        """One session; workers are threads that call it at once."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        session = onnxruntime.InferenceSession(str(model_file(task)), options, providers=["CPUExecutionProvider"])
        names = {declared.name for declared in session.get_inputs()}

        def run(inputs: Inputs) -> np.ndarray:
            logits: np.ndarray = session.run(None, {name: inputs[name] for name in names})[0]
            return logits

        return in_threads(run, settings.workers)


def quantize(file: Path) -> None:
    """Replaces a model by its int8 version: weights per channel, activations at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(file),
        str(file),
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=needs_external_data(file),
        # Shape inference stops at the fused operators.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def needs_external_data(file: Path) -> bool:
    """Whether a model is beyond the 2 GB that one file of this format can hold."""
    return sum(part.stat().st_size for part in file.parent.iterdir() if part.is_file()) > 1.9e9


def model_file(task: Task) -> Path:
    """Where the converted model is."""
    return task.folder / "model.onnx"
