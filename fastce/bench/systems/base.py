"""What a system is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastce.spec import Precision

Pair = tuple[str, str]


@dataclass(frozen=True)
class Task:
    """What a system is asked to run.

    Attributes:
        model: A model's directory or Hub id.
        precision: The arithmetic.
        threads: CPU cores to use.
        max_length: Tokens of a pair at most.
        sample: Pairs like the ones to be scored, to calibrate and to tune with.
        folder: A folder of this task's own for converted models.
        device: Where to run.
    """

    model: str
    precision: Precision
    threads: int
    max_length: int
    sample: Sequence[Pair]
    folder: Path
    device: str = "cpu"


class System(Protocol):
    """A way to score pairs."""

    def load(self, task: Task) -> str:
        """Loads the model, and says with which settings; called once, in the process that scores."""
        ...

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Logits, float32 `[num_pairs, num_labels]`, in the order of the pairs; tokenises them as well."""
        ...


class Converter(System, Protocol):
    """A system that converts models first, in another process, so that this is no part of scoring's memory."""

    def prepare(self, task: Task) -> None:
        """Converts the model into `task.folder` and finds the best settings."""
        ...


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        path: `module:class` of the system.
        precisions: What it can run on CPUs.
        packages: Modules that it imports, to the names under which pip knows them.
        converts: Whether it is a `Converter`.
        on_gpus: What it can run on GPUs.
    """

    path: str
    precisions: tuple[Precision, ...]
    packages: dict[str, str] = field(default_factory=dict)
    converts: bool = False
    on_gpus: tuple[Precision, ...] = ()

    def missing_packages(self) -> list[str]:
        """Packages that are not installed, as pip knows them."""
        return [package for module, package in self.packages.items() if not importable(module)]


SYSTEMS: dict[str, Entry] = {
    "fastce": Entry(
        "fastce.bench.systems.fastce:Fastce",
        ("fp32", "bf16", "fp16", "int8"),
        on_gpus=("fp32", "bf16", "fp16", "int8", "fp8"),
    ),
    "transformers": Entry("fastce.bench.systems.transformers:Transformers", ("fp32",), on_gpus=("fp32",)),
    "sentence-transformers": Entry(
        "fastce.bench.systems.sentence_transformers:SentenceTransformers",
        ("fp32", "bf16"),
        {"sentence_transformers": "sentence-transformers"},
        on_gpus=("fp32", "bf16", "fp16"),
    ),
    "accelerated": Entry(
        "fastce.bench.systems.accelerated:Accelerated",
        ("fp32", "bf16", "fp16", "int8"),
        {"sentence_transformers": "sentence-transformers"},
        on_gpus=("fp32", "bf16", "fp16", "int8"),
    ),
    "onnxruntime": Entry(
        "fastce.bench.systems.onnxruntime:OnnxRuntime",
        ("fp32", "int8"),
        {"onnxruntime": "onnxruntime", "onnx": "onnx"},
        converts=True,
    ),
    "openvino": Entry(
        "fastce.bench.systems.openvino:OpenVino",
        ("fp32", "bf16", "int8"),
        {"openvino": "openvino", "nncf": "nncf"},
        converts=True,
    ),
    "ctranslate2": Entry(
        "fastce.bench.systems.ctranslate2:CTranslate2",
        ("fp32", "int8"),
        {"ctranslate2": "ctranslate2"},
        converts=True,
    ),
    "optimum-intel": Entry(
        "fastce.bench.systems.optimum_intel:OptimumIntel",
        ("fp32", "bf16"),
        {"optimum.intel": "optimum-intel", "openvino": "openvino"},
        converts=True,
    ),
}
"""Names to systems. A new one is a file beside this one and a row here."""


def importable(module: str) -> bool:
    """Whether a module is installed."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def make_system(path: str) -> Any:
    """Imports and makes the `System` or `Converter` at `module:class`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)()
