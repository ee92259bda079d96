"""CTranslate2, tuned: a worker for each core; the classification head, which it lacks, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

COMPUTE_TYPES = {"fp32": "float32", "int8": "int8"}
HEADS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj"),
    "camembert": ("classifier.dense", "classifier.out_proj"),
}
"""Model types whose encoder it runs, to the two layers of their head, with tanh between them."""


class CTranslate2(ConvertedSystem):
    """The encoder in CTranslate2's format, and the head beside it."""

    def convert(self, task: Task, encoder: PairEncoder) -> None:
        """Converts the encoder and writes the head."""
        from ctranslate2.converters import TransformersConverter

        module = classifier(task.model)
        kind = module.config.model_type
        if kind not in HEADS:
            raise ValueError(f"CTranslate2 runs {', '.join(HEADS)}, not {kind}")
        layers = [module.get_submodule(name) for name in HEADS[kind]]
        np.savez(
            task.folder / "head.npz",
            **{
                f"{name}_{part}": getattr(layer, part).detach().numpy()
                for name, layer in zip(("dense", "output"), layers, strict=True)
                for part in ("weight", "bias")
            },
        )

        class Converter(TransformersConverter):
            """Says what transformers 5 no longer does: that positions are absolute, as all `HEADS` have them."""

            def load_model(self, *arguments: Any, **options: Any) -> Any:
                model = super().load_model(*arguments, **options)
                model.config.position_embedding_type = "absolute"
                return model

        Converter(task.model).convert(str(task.folder / "encoder"), force=True)

    def variants(self, task: Task) -> Sequence[str]:
        """Nothing else to choose."""
        return [""]

    def open(self, task: Task, settings: Settings) -> Engine:
        """One encoder with as many workers."""
        import ctranslate2

        encoder: Any = ctranslate2.Encoder(
            str(task.folder / "encoder"),
            device="cpu",
            compute_type=COMPUTE_TYPES[task.precision],
            inter_threads=settings.workers,
            intra_threads=settings.threads,
        )
        head = dict(np.load(task.folder / "head.npz"))

        def run(inputs: Inputs) -> np.ndarray:
            ids = inputs["input_ids"].astype(np.int32)
            lengths = inputs["attention_mask"].sum(axis=1).astype(np.int32)
            types = inputs.get("token_type_ids")
            output = encoder.forward_batch(
                ctranslate2.StorageView.from_array(ids),
                ctranslate2.StorageView.from_array(lengths),
                token_type_ids=None if types is None else types.tolist(),
            )
            first = np.array(output.last_hidden_state)[:, 0]  # [batch_size, hidden_size]
            dense = np.tanh(first @ head["dense_weight"].T + head["dense_bias"])
            logits: np.ndarray = dense @ head["output_weight"].T + head["output_bias"]
            return logits

        return in_threads(run, settings.workers)
