"""Compiles every kernel for GPUs that are not here, through the launchers that run them, and prints what came of it.

`make kernel-figures` keeps that in compiled.json beside this file. It needs a process of its own: what is interpreted
can't be compiled.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from fastce.backends.base import Request
from fastce.backends.ops import BiasTable, PositionTables
from fastce.backends.triton import (
    activation,
    add_norm,
    attention,
    dropout,
    embed,
    folded,
    linear_8bit,
    pool,
    quantize,
    rotary,
)
from fastce.backends.triton.attention_backward import launch_backward as launch_attention_backward
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout
from fastce.backends.triton.engine import BACKEND
from fastce.backends.triton.norm import Statistics
from fastce.backends.triton.norm import launch_backward as launch_norm_backward
from fastce.backends.triton.relative import NO_DISTANCES, by_distance
from fastce.backends.weights import NormWeights
from fastce.checkpoints.network import Description, Network, Stored
from fastce.packing import PackedBatch, Spans
from fastce.parameters import parameters
from fastce.spec import (
    AbsolutePositions,
    Attention,
    Dense,
    DisentangledAttention,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    Layer,
    LayerNorm,
    PostNorm,
    RelativeBias,
    RMSNorm,
    RotaryEmbedding,
)

ROWS_OF_PRODUCTS = {
    "attention_forward_kernel": "BLOCK_QUERIES",
    "query_gradient_kernel": "BLOCK_QUERIES",
    "key_value_gradient_kernel": "BLOCK_KEYS",
    "folded_scores_kernel": "BLOCK_HEADS",
    "folded_context_kernel": "BLOCK_HEADS",
    "linear_8bit_kernel": "BLOCK_ROWS",
}
BATCHES = [[100, 90, 80], [65], [128] * 16, [66, *[1] * 7]]
"""Of one tile, and else of nothing in common."""
LEVELS = ("sm_80", "sm_89", "sm_90")
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
DROPOUT = Dropout(1 << 40, 0.1)
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

Case = Callable[[], object]


def attention_case(
    dtype: str, kind: Attention, lengths: list[int], rows: Any = "all", dropped: Dropout = NO_DROPOUT, *, back: bool
) -> Case:
    """Attention over the parts of one product, as inference has them; in training each is a matrix of its own."""
    total, heads, kv_heads = sum(lengths), kind.heads, kind.kv_heads or kind.heads
    wide = torch.empty(total, (heads + 2 * kv_heads) * kind.head_dim, dtype=DTYPES[dtype])
    parts = wide.split([number * kind.head_dim for number in (heads, kv_heads, kv_heads)], -1)
    query, key, value = (part.unflatten(-1, (-1, kind.head_dim)) for part in parts)
    if rows != "all":
        query = query[: len(lengths)]
    arguments = Spans.of(lengths), kind, rows, dropped
    if not back:
        return lambda: attention.launch_forward(query, key, value, *arguments, with_log_sum=dropped is not NO_DROPOUT)
    output, log_sum = torch.empty(query.shape, dtype=query.dtype), torch.empty(heads, len(query))
    return lambda: launch_attention_backward(output, query, key, value, output, log_sum, *arguments, NO_DISTANCES)


MINILM, BERT = Attention(12, 32), Attention(12, 64)
MODERNBERT = replace(BERT, window=64)
QWEN = Attention(16, 128, kv_heads=8, causal=True)
WIDEST = Attention(4, 256, kv_heads=1)


def attention_cases() -> Iterator[tuple[str, Case]]:
    """Every tile of the list, plain; and each feature once."""
    for length in (16, 32, 64, 128, 512):
        yield f"attention fp16 32x{length}", attention_case("fp16", MINILM, [length], back=False)
    for length in (128, 512):
        yield f"attention fp16 64x{length}", attention_case("fp16", BERT, [length], back=False)
        yield f"attention fp32 32x{length}", attention_case("fp32", MINILM, [length], back=False)
        yield f"attention fp32 64x{length}", attention_case("fp32", BERT, [length], back=False)
        yield f"attention fp16 32x{length}, first row", attention_case("fp16", MINILM, [length], "first", back=False)
    yield "attention bf16 64x128, dropout", attention_case("bf16", BERT, [128], dropped=DROPOUT, back=False)
    yield "attention bf16 64x512, window", attention_case("bf16", MODERNBERT, [512], back=False)
    yield "attention bf16 128x128, causal", attention_case("bf16", QWEN, [128], back=False)
    yield "attention bf16 128x512, causal", attention_case("bf16", QWEN, [512], back=False)
    yield "attention fp32 128x512, causal", attention_case("fp32", QWEN, [512], back=False)
    for length in (32, 512):
        yield f"attention bf16 256x{length}", attention_case("bf16", WIDEST, [length], back=False)
        yield f"attention fp32 256x{length}", attention_case("fp32", WIDEST, [length], back=False)
    yield "attention bf16 256x512, dropout", attention_case("bf16", WIDEST, [512], dropped=DROPOUT, back=False)
    for length in (128, 512):
        for dtype in ("fp16", "fp32"):
            for name in RELATIONS:
                yield f"attention {dtype} 64x{length}, {name}", relative_case(dtype, length, name)
    for dtype in ("bf16", "fp32"):
        for name in RELATIONS:
            yield f"attention {dtype} 64, {name}, dropout", relative_case(dtype, 512, name, DROPOUT)
            yield f"attention gradients {dtype} 64, {name}", relative_case(dtype, 512, name, DROPOUT, back=True)
    widths = ("fp16", "32", MINILM), ("bf16", "64", BERT), ("bf16", "128", QWEN)
    for dtype, name, kind in widths:
        yield f"attention gradients {dtype} {name}", attention_case(dtype, kind, [512], dropped=DROPOUT, back=True)
    for name, kind in (("32", MINILM), ("64", BERT), ("128", QWEN)):
        yield f"attention gradients fp32 {name}", attention_case("fp32", kind, [512], dropped=DROPOUT, back=True)
    for dtype, heads, size in (("fp16", 12, 384), ("bf16", 16, 1024), ("fp32", 12, 768), ("fp32", 32, 1024)):
        query = torch.empty(heads, 3, 1, size, dtype=DTYPES[dtype])
        arguments = query, torch.empty(300, size, dtype=query.dtype), Spans.of([100] * 3), 0.125
        yield f"folded attention {dtype} {heads}x{size}", partial(folded.launch_folded, *arguments)
    yield "attention gradients bf16 64, first row", attention_case("bf16", BERT, [512], "first", back=True)


RELATIONS = {
    "bias": RelativeBias(1023, tuple(range(1023))),
    "disentangled": DisentangledAttention(512, tuple(range(1023)), True, True, True, None),
}


def relative_case(dtype: str, length: int, name: str, dropped: Dropout = NO_DROPOUT, *, back: bool = False) -> Case:
    """Attention of MPNet, or of DeBERTa."""
    x = torch.empty(length, 12, 64, dtype=DTYPES[dtype])
    relation = RELATIONS[name]
    tables = BiasTable(torch.empty(1023, 12)) if name == "bias" else PositionTables(*[x.new_empty(1024, 12, 64)] * 2)
    kind = replace(BERT, relation=relation)
    distances, arguments = by_distance(x, x, kind, tables, length), (Spans.of([length]), kind, "all", dropped)
    if back:
        return lambda: launch_attention_backward(x, x, x, x, x, torch.empty(12, length), *arguments, distances)
    with_log_sum = dropped is not NO_DROPOUT
    return lambda: attention.launch_forward(x, x, x, *arguments, distances, with_log_sum=with_log_sum)


def norm_case(dtype: str, size: int, norm: Any, *, keep_sum: bool, back: bool) -> Case:
    """The end of a sublayer over rows of a width."""
    x, stream = torch.empty(300, size, dtype=DTYPES[dtype]), torch.empty(300, size)
    weights = NormWeights(norm, stream[0], stream[1])
    statistics = Statistics(stream, None if isinstance(norm, RMSNorm) else torch.empty(300), torch.empty(300))
    if not back:
        return lambda: add_norm.launch_forward(
            x, x[0], stream, weights, NO_DROPOUT, keep_sum=keep_sum, with_statistics=False
        )
    return lambda: launch_norm_backward(
        stream,
        x,
        statistics,
        stream[0],
        x_dtype=x.dtype,
        stream_dtype=torch.float32,
        dropout=DROPOUT,
        keep_sum=keep_sum,
    )


def other_cases() -> Iterator[tuple[str, Case]]:
    """The kernels that are bound by memory."""
    layer, rms = LayerNorm(1e-12), RMSNorm(1e-6)
    for size in (384, 768, 1024):
        yield f"add and norm fp16 {size}", norm_case("fp16", size, layer, keep_sum=False, back=False)
        yield f"add and norm gradients bf16 {size}", norm_case("bf16", size, layer, keep_sum=False, back=True)
    yield "add and norm fp32 768, sum kept", norm_case("fp32", 768, layer, keep_sum=True, back=False)
    yield "add and norm bf16 4096, rms", norm_case("bf16", 4096, rms, keep_sum=True, back=False)
    yield "add and norm gradients bf16 4096, rms", norm_case("bf16", 4096, rms, keep_sum=True, back=True)
    heads = torch.empty(300, 16, 128, dtype=torch.bfloat16)
    norms = NormWeights(rms, torch.empty(128), None)
    yield (
        "norm of heads bf16 128",
        lambda: add_norm.launch_forward(None, None, heads, norms, NO_DROPOUT, keep_sum=False, with_statistics=False),
    )
    ids, table = torch.zeros(300, dtype=torch.int32), torch.empty(30, 768)
    weights = NormWeights(layer, table[0], table[1])
    for name, dropped in (("embeddings 768", NO_DROPOUT), ("embeddings 768, dropout", DROPOUT)):
        yield (
            name,
            lambda dropped=dropped: embed.launch_forward(  # type: ignore[misc]
                [ids] * 3, [table] * 3, weights, dropped, with_statistics=dropped is DROPOUT
            ),
        )
    x = torch.empty(300, 2 * 3072, dtype=torch.bfloat16)
    gate, up = x.split(3072, -1)
    bias = torch.empty(3072)
    yield "gelu bf16 3072", lambda: activation.launch_forward("gelu", gate, bias, None, None)
    yield "gelu gradients bf16 3072", lambda: activation.launch_backward("gelu", gate, gate, bias, None, None)
    yield "gated silu bf16 3072", lambda: activation.launch_forward("silu", gate, None, up, None)
    yield "gated silu gradients bf16 3072", lambda: activation.launch_backward("silu", gate, gate, None, up, None)
    relation, spans = RotaryEmbedding(tuple(0.9**n for n in range(32))), Spans.of([300])
    q = x[:, :768].unflatten(-1, (12, 64))
    yield "rotation bf16 64", lambda: rotary.launch_rotary(q, spans, relation, "all", back=False)
    yield "mean bf16 3072", lambda: pool.launch_forward(up, spans)
    yield "mean gradients bf16 3072", lambda: pool.launch_backward(table, spans, 300, torch.bfloat16)
    yield "dropout bf16 3072", lambda: dropout.launch_dropout(up, DROPOUT)


def cases_8bit(name: str, dtype: torch.dtype) -> Iterator[tuple[str, Case]]:
    """Every tile of the products, and rows in 8 bits."""
    weight, scales = torch.empty(1536, 384, dtype=dtype), torch.empty(1536)
    sums = torch.empty(1536, dtype=torch.int32) if dtype == torch.int8 else None
    for cut, rows in zip(linear_8bit.TILES, (4096, 256, 16), strict=True):
        if linear_8bit.tiles_of(rows, len(weight), dtype) != cut:
            continue  # not of fp8
        x = quantize.empty_quantized(rows, 384, dtype, weight.device)
        arguments = x, weight, scales, sums, scales, "gelu", torch.bfloat16
        yield f"{name} product {cut.rows}x{cut.columns}", partial(linear_8bit.launch_linear_8bit, *arguments)
    rows = torch.empty(300, 3072, dtype=torch.bfloat16)
    yield f"rows as {name} bf16 3072", lambda: quantize.quantize(rows, dtype)
    x, stream = torch.empty(300, 384, dtype=torch.bfloat16), torch.empty(300, 384)
    norm = NormWeights(LayerNorm(1e-12), stream[0], stream[1])
    yield f"add and norm {name} 384", lambda: add_norm.add_norm_8bit(x, stream[0], stream, norm, dtype, keep_sum=False)


def cases_for(capability: int) -> Iterator[tuple[str, Case]]:
    """What runs on GPUs of a compute capability: of Ada's fp8 alone, all else is there as on Ampere's."""
    if capability != 89:
        yield from attention_cases()
        yield from other_cases()
        yield from cases_8bit("int8", torch.int8)
    if capability >= 89:
        yield from cases_8bit("fp8", torch.float8_e4m3fn)


class AbsentGpu:
    """Stands in for the driver of a GPU that is not here."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # kernels are kept by device

    def get_current_stream(self, device: int) -> int:
        return 0


def figures(kernel: Any, constants: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What the compiler made of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    numbers = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    operand = "e4m3" if dtype == torch.float8_e4m3fn else ""
    multiplies = [name for name in ("wgmma", "mma") if re.search(rf"\b{name}\.\S*{operand}", kernel.asm["ptx"])]
    rows = constants.get(ROWS_OF_PRODUCTS.get(kernel.metadata.name, ""))
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "warps": kernel.metadata.num_warps,
        "registers": numbers["REG"],
        "spilled bytes": numbers["STACK"] + numbers["LOCAL"],
        "shared bytes": kernel.metadata.shared,
        "rows of products": rows,
        "tensor cores": multiplies[0] if multiplies else None,
    }


def compile_only(use: Callable[[Any, dict[str, Any], torch.dtype], None]) -> None:
    """Has launches compile kernels for the current target, and hands these on with their constants and a dtype."""

    def launcher(kernel: JITFunction, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            dtype = next(argument.dtype for argument in args if isinstance(argument, torch.Tensor))
            use(kernel.run(*args, grid=grid, warmup=True, **options), options, dtype)

        return launch

    JITFunction.__getitem__ = launcher


def compile_all(capability: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compiles each case's kernels for a GPU."""
    driver.set_active(AbsentGpu(capability))
    compiled: list[tuple[str, dict[str, Any]]] = []
    compile_only(lambda kernel, *others: compiled.append((kernel.metadata.name, figures(kernel, *others))))
    for name, case in cases_for(capability):
        compiled.clear()
        case()
        yield from ((f"{name}: {kernel}", found) for kernel, found in compiled)


def compiled_in_turn(batches: list[list[int]]) -> list[int]:
    """How many kernels one model has had compiled after each of some batches, given by the lengths of their pairs."""
    norm, layer = LayerNorm(1e-12), Layer(Attention(2, 32), FeedForward(128, "gelu"))
    embeddings = Embeddings(50, 64, norm, 2, AbsolutePositions(512))
    spec = EncoderSpec(64, 512, embeddings, (layer, layer), PostNorm(norm))
    head = HeadSpec("first", (Dense(64, "tanh"), Dense(1)))
    weights = {name: Stored(torch.zeros(shape)) for name, (shape, _) in parameters(spec, head).items()}
    encoder = BACKEND.build(Request(Network(None, Description(spec, head, weights)), "fp16", torch.device("cpu")))
    compiled: set[int] = set()
    compile_only(lambda kernel, *others: compiled.add(id(kernel)))
    counts = []
    for lengths in batches:
        ids = torch.zeros(sum(lengths), dtype=torch.int32)
        encoder.logits(PackedBatch(ids, ids, ids, Spans.of(lengths)))
        counts.append(len(compiled))
    return counts


def table() -> Iterator[str]:
    """The figures as JSON, a kernel a line."""
    yield f'{{"triton": {json.dumps(triton.__version__)}'
    for level in LEVELS:
        rows = compile_all(int(level.removeprefix("sm_")))
        yield (
            f',\n"{level}": {{\n' + ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in rows) + "}"
        )
    yield f',\n"in turn": {json.dumps(compiled_in_turn(BATCHES))}}}\n'


if __name__ == "__main__":
    sys.stdout.writelines(table())
