"""Writes a model as ONNX, checked against what fastce computes."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fastce.checkpoints.adapters import merged_module
from fastce.checkpoints.chain import ModuleChain
from fastce.corpus.score import load
from fastce.options import ModelOptions

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

FILE = "onnx/model.onnx"
"""Where sentence-transformers and optimum look for it in a model's folder."""

AXES = {0: "batch", 1: "tokens"}

TOLERANCE = 1e-4
"""How much a logit may differ, times its size where that is larger than 1: two engines' rounding in fp32."""

MOST_IN_ONE_FILE = 2**31 - 2**20
"""Bytes of weights that fit into a protobuf; larger ones are written beside it."""

SAMPLES = (
    ("Where?", "Here."),
    ("How many people live in Berlin?", "Berlin has 3.9 million inhabitants, and many museums."),
    ("Is there a train to the sea?", " ".join(["Trains to the coast leave every 30 minutes."] * 100)),
    ("", "naïve café über straße 東京"),
)
"""Pairs of uneven lengths, one of which is truncated by most models."""


def export_onnx(model: CrossEncoder | ModelOptions | str, folder: str | Path) -> float:
    """Writes a model with its logits as ONNX, in float32, for batches of any size and length.

    Args:
        model: A model, what it is loaded with, or its directory or Hub id.
        folder: Where to; gets all that `CrossEncoder.save` writes, and `onnx/model.onnx` as sentence-transformers'
            and optimum's backends for ONNX look for it: inputs as the tokenizer names them, int64 `[batch, tokens]`,
            and `logits`, float32 `[batch, num_labels]`, without the activation function.

    Returns:
        The largest difference of a logit, as ONNX Runtime computes it, from fastce's in fp32, on pairs of uneven
        lengths, alone and padded.

    Raises:
        ImportError: A package of the extra `onnx` is missing.
        ValueError: The model has no head, or is of a kind that ONNX files have no place for; the message says which.
        RuntimeError: PyTorch can't export the model, or the file computes something else.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ONNX export needs the package {error.name}: pip install 'fastce[onnx]'") from error
    loaded = load(model)
    if isinstance(loaded.model, ModuleChain):
        raise ValueError(
            f"{loaded.config._name_or_path}: is a chain of modules, and {FILE} counts as the first of them alone; "
            "models for sequence classification can be exported"
        )
    target = Path(folder)
    if target.suffix == ".onnx" or target.is_file():
        raise ValueError(f"{folder}: expected a folder, which gets {FILE} and all that belongs to it")
    loaded.save(target)
    file = target / FILE
    file.parent.mkdir(exist_ok=True)
    module = copy.deepcopy(merged_module(loaded.model)).cpu().eval()
    write_graph(module, dict(features(loaded, SAMPLES[:2])), file)
    found = difference(loaded, file)
    if not found <= TOLERANCE:
        for part in file.parent.glob(f"{file.name}*"):
            part.unlink()
        raise RuntimeError(f"{file}: its logits differ by {found:.1e} from those of fastce, and it was deleted")
    return found


class Logits(nn.Module):
    """A model with inputs in a row, and logits alone.

    Args:
        module: The Hugging Face module.
        names: What its inputs are called, in their order.
    """

    def __init__(self, module: Any, names: list[str]):
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits of a padded batch, `[batch, num_labels]`, from inputs `[batch, tokens]`."""
        logits: torch.Tensor = self.module(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def features(model: CrossEncoder, pairs: Any) -> dict[str, torch.Tensor]:
    """A padded batch of pairs, int64 `[batch, tokens]` each."""
    first, second = map(list, zip(*pairs, strict=True))
    encoded = model.tokenizer(
        first, second, padding=True, truncation=True, max_length=model.max_length, return_tensors="pt"
    )
    return {name: values.long() for name, values in encoded.items()}


def write_graph(module: Any, inputs: dict[str, torch.Tensor], file: Path) -> None:
    """Writes a module's graph.

    Raises:
        RuntimeError: PyTorch can't export it.
    """
    names = list(inputs)
    size = sum(weight.nbytes for weight in module.parameters())
    with quiet():
        try:
            torch.onnx.export(
                Logits(module, names),
                tuple(inputs.values()),
                file,
                input_names=names,
                output_names=["logits"],
                dynamo=True,
                dynamic_shapes=(tuple(AXES for _ in names),),
                external_data=size > MOST_IN_ONE_FILE,
                verbose=False,
            )
        except Exception as error:  # of many kinds, with pages of advice
            kind = module.config.model_type
            raise RuntimeError(f"PyTorch {torch.__version__} can't export a model of type {kind!r}") from error


def difference(model: CrossEncoder, file: Path) -> float:
    """The largest difference of a logit from fastce's, times 1 over its size where that is larger than 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    expected = model.predict(SAMPLES, prompt="", activation_fn=nn.Identity(), precision="fp32")
    expected = expected.reshape(len(SAMPLES), -1)
    found = []
    for size in (1, 3):
        for start in range(0, len(SAMPLES), size):
            batch = features(model, SAMPLES[start : start + size])
            logits = session.run(["logits"], {name: batch[name].numpy() for name in names})[0]
            of_fastce = expected[start : start + size]
            found.append(np.abs(logits - of_fastce) / np.maximum(1, np.abs(of_fastce)))
    return float(np.concatenate(found).max())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and on itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
