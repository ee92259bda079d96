"""What scoring costs on a GPU that is not here: each kernel's launches, bytes and operations, and what they predict.

    make gpu-costs

The engine itself runs, on tensors without memory, and each launch is written down in place of being made. So nothing
here can forget a kernel, and the predictions are what to compare with as soon as a GPU is at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig
from triton.runtime.jit import KernelInterface

from fastce.backends.reference.engine import DTYPES, converted
from fastce.backends.triton.engine import DTYPES_8BIT, TritonEncoder, folded_parts, stacked
from fastce.backends.triton.linear_8bit import matrix_8bit
from fastce.checkpoints.network import FAMILIES, Description, Stored
from fastce.packing import MAX_BATCH_TOKENS, PackedBatch, Spans
from fastce.parameters import parameters
from fastce.spec import Precision
from fastce.steps import program

NOWHERE = torch.device("meta")

PEAK: dict[str, float] = {
    "float32": 67e12,
    "float16": 989e12,
    "bfloat16": 989e12,
    "int8": 1979e12,
    "float8_e4m3fn": 1979e12,
}
"""Operations a second of an H100 SXM by its data sheet, without sparsity; float32 without tensor cores."""
BANDWIDTH = 3.35e12
"""Its bytes a second, likewise."""
REACHED_PEAK, REACHED_BANDWIDTH = 0.65, 0.85
"""The shares of both that good kernels reach: assumptions, until they are measured."""
SHORTEST = 2e-6
"""Seconds that a kernel takes at least, from its start to the next one's: an assumption."""
LAUNCH = 15e-6
"""Seconds that the host takes for a launch from Python: an assumption."""

CONFIGS: dict[str, dict[str, int]] = {
    "MiniLM-L6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
LENGTHS = (64, 128, 256)
PRODUCTS = {"linear": 0, "mm": 0, "bmm": 0, "baddbmm": 1}
"""PyTorch's products, to which of their arguments is the left matrix."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "fp8")


@dataclass
class Cost:
    """What the launches of a kernel cost together.

    Attributes:
        launches: How many.
        moved: Bytes of all that they read or write, each once.
        operations: Arithmetic operations of their products.
        seconds: The time predicted.
    """

    launches: int = 0
    moved: int = 0
    operations: int = 0
    seconds: float = 0.0

    def add(self, moved: int, operations: int, dtype: torch.dtype) -> None:
        """Adds a launch, which takes as long as the slower of its memory and its arithmetic."""
        self.launches += 1
        self.moved += moved
        self.operations += operations
        arithmetic = operations / (PEAK[str(dtype).removeprefix("torch.")] * REACHED_PEAK) if operations else 0.0
        self.seconds += max(SHORTEST, moved / (BANDWIDTH * REACHED_BANDWIDTH), arithmetic)


class Recorder(TorchDispatchMode):
    """Writes down what PyTorch and Triton would launch.

    Args:
        lengths: Tokens of the sequences.
        device: Where the engine's tensors are.
    """

    def __init__(self, lengths: tuple[int, ...], device: torch.device):
        super().__init__()
        self.lengths = lengths
        self.device = device
        self.costs: dict[str, Cost] = {}

    def record(self, name: str, tensors: list[torch.Tensor], operations: int, dtype: torch.dtype) -> None:
        """Adds a launch to a kernel's costs."""
        self.costs.setdefault(name, Cost()).add(sum(map(bytes_of, tensors)), operations, dtype)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation of PyTorch and writes it down, unless it only looks at memory or asks for some."""
        result = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").partition(".")[0]
        tensors = [argument for argument in args if isinstance(argument, torch.Tensor)]
        is_there = isinstance(result, torch.Tensor) and result.device.type == self.device.type and tensors
        if is_there and not looks(func, args, result):
            depth = args[PRODUCTS[name]].shape[-1] if name in PRODUCTS else 0
            operations = 2 * result.numel() * depth
            read = [result] if name == "index" else tensors  # of what is indexed, as many rows as come out
            self.record(f"torch {name}", [*read, result], operations, result.dtype)
        return result

    @contextmanager
    def of_kernels(self) -> Iterator[None]:
        """Has Triton's launches written down in place of being made."""
        launcher = KernelInterface.__getitem__

        def recorded(kernel: Any, grid: Any) -> Callable[..., None]:
            name = kernel.fn.__name__.removesuffix("_kernel")
            return lambda *args, **constants: self.launched(name, args, constants)

        KernelInterface.__getitem__ = recorded
        try:
            yield
        finally:
            KernelInterface.__getitem__ = launcher

    def launched(self, name: str, args: tuple[Any, ...], constants: dict[str, Any]) -> None:
        """Writes down a launch of Triton's."""
        tensors = [argument for argument in args if isinstance(argument, torch.Tensor)]
        operations = 0
        if name == "linear_8bit":
            operations = 2 * tensors[0].shape[0] * constants["COLUMNS"] * constants["DEPTH"]
        elif name == "attention_forward":
            queries, keys = constants["BLOCK_QUERIES"], constants["BLOCK_KEYS"]
            scores = sum(
                padded(length if constants["ROWS"] == "all" else 1, queries) * padded(length, keys)
                for length in self.lengths
            )
            operations = 4 * scores * constants["HEADS"] * constants["BLOCK_DIM"]
        elif name in ("folded_scores", "folded_context"):
            tokens = sum(padded(length, constants["BLOCK_KEYS"]) for length in self.lengths)
            operations = 2 * tokens * constants["BLOCK_HEADS"] * constants["SIZE"]
        elif name == "embed":  # of each table as many rows as there are tokens
            ids, tables, others = tensors[0:6:2], tensors[1:6:2], tensors[6:]
            tensors = [*ids, *others] + [table[:1].expand(len(ids[0]), -1) for table in tables]
        self.record(name, tensors, operations, tensors[0].dtype)


def looks(func: Any, args: Any, result: torch.Tensor) -> bool:
    """Whether an operation of PyTorch only looks at memory: by its schema it may, and a cast does not."""
    may = any(argument.alias_info is not None for argument in func._schema.arguments)
    return may and result.dtype == args[0].dtype


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements."""
    return prod(tensor.shape) * tensor.element_size()


def padded(size: int, block: int) -> int:
    """A size rounded up to blocks."""
    return -(-size // block) * block


def encoder_of(name: str, precision: Precision) -> TritonEncoder:
    """An engine whose weights have no values."""
    config = BertConfig(**CONFIGS[name], num_labels=1)
    spec, head = FAMILIES["bert"].encoder(config), FAMILIES["bert"].head(config)
    found, network = parameters(spec, head), program(spec, head)
    weights = {key: Stored(torch.empty(shape, device=NOWHERE)) for key, (shape, _) in found.items()}
    if precision not in DTYPES_8BIT:
        kept = converted(Description(spec, head, weights), DTYPES[precision], NOWHERE, own=True)
        return TritonEncoder(network, stacked(kept), NOWHERE)
    in_8bit: dict[str, Stored] = {}
    dtype = DTYPES_8BIT[precision]
    for key, stored in weights.items():
        part = key.rpartition(".")[0]
        if part in folded_parts(network):
            in_8bit[key] = Stored(stored.whole.bfloat16())
        else:
            in_8bit |= matrix_8bit(part, stored.whole, dtype) if found[key].role == "matrix" else {key: stored}
    return TritonEncoder(network, stacked(in_8bit), NOWHERE)


def costs_of(name: str, precision: Precision, length: int, pairs: int) -> dict[str, Cost]:
    """The costs of one batch by kernel."""
    encoder, spans = encoder_of(name, precision), Spans.of([length] * pairs)
    ids = torch.zeros(length * pairs, dtype=torch.int32)
    return recorded(encoder, PackedBatch(ids, ids, ids, spans))


def recorded(encoder: TritonEncoder, batch: PackedBatch) -> dict[str, Cost]:
    """The costs of a batch by kernel, none of which is launched; without graphs."""
    recorder = Recorder(batch.spans.lengths, encoder.device)
    graphs, encoder.graphs = encoder.graphs, None
    with recorder.of_kernels(), recorder:
        encoder.logits(batch)
    encoder.graphs = graphs
    return recorder.costs


def lines(name: str, precision: Precision, length: int) -> Iterator[str]:
    """A batch as a table, and what it predicts."""
    pairs = MAX_BATCH_TOKENS // length
    costs = costs_of(name, precision, length, pairs)
    yield f"\n{name}, {precision}, {pairs} pairs of {length} tokens"
    yield f"{'kernel':24}{'launches':>9}{'MB':>9}{'Gop':>9}{'us':>9}"
    for kernel, cost in sorted(costs.items(), key=lambda item: -item[1].seconds):
        numbers = f"{cost.moved / 1e6:9.1f}{cost.operations / 1e9:9.1f}{cost.seconds * 1e6:9.1f}"
        yield f"{kernel:24}{cost.launches:9}{numbers}"
    device, launches = sum(cost.seconds for cost in costs.values()), sum(cost.launches for cost in costs.values())
    host = launches * LAUNCH
    predicted = f"{pairs / max(device, host):,.0f} pairs/s predicted"
    yield f"device {device * 1e6:.0f} us, host {host * 1e6:.0f} us: {predicted}"


if __name__ == "__main__":
    for model in CONFIGS:
        for precision in PRECISIONS:
            for length in LENGTHS:
                sys.stdout.write("\n".join(lines(model, precision, length)) + "\n")
