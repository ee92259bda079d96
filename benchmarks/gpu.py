"""Scoring on a GPU against sentence-transformers: a table, a JSON file and a picture.

    make bench-gpu

Models are random in the shapes of published ones. Batches of one length are computed with their tokens ready, and pairs
of texts of about that length end to end, in turns with sentence-transformers in fp16 with sdpa.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer
from gpu_costs import bytes_of, recorded
from random_model import write_random_model

from fastce import CrossEncoder
from fastce.packing import MAX_BATCH_TOKENS, PackedBatch, Spans
from fastce.spec import Precision

SHAPES = ("minilm-l6", "minilm-l12", "bert-base", "modernbert-base", "xlmr-large")
LENGTHS = (64, 128, 256)
SECONDS = 2.0
"""How long each system is timed at least, after one round that nobody times."""
ROUNDS = 3


def synchronize(device: str) -> None:
    """Waits for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds_of(systems: dict[str, Callable[[], object]], device: str, seconds: float) -> dict[str, float]:
    """The median time of a call of each system, called in turns."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for function in systems.values():
        function()
    synchronize(device)
    end = perf_counter() + seconds * len(systems)
    while perf_counter() < end or len(times[next(iter(times))]) < ROUNDS:
        for name, function in systems.items():
            start = perf_counter()
            function()
            synchronize(device)
            times[name].append(perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


def ceilings(device: str) -> dict[str, float]:
    """What the device reaches: TFLOP/s of a large product in fp16, GB/s of a large copy."""
    size = 8192 if device.startswith("cuda") else 256
    a, b = torch.randn(2, size, size, device=device).half()
    source = torch.empty(size * size, device=device)
    target = torch.empty_like(source)
    found = seconds_of({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, device, 0.5)
    return {"TFLOP/s": 2 * size**3 / found["product"] / 1e12, "GB/s": 2 * bytes_of(source) / found["copy"] / 1e9}


def batch_of(length: int, tokens: int, vocabulary: int) -> PackedBatch:
    """Random ids in sequences of one length."""
    pairs = max(1, tokens // length)
    ids = torch.randint(vocabulary, (pairs * length,), dtype=torch.int32)
    places = torch.arange(length, dtype=torch.int32).repeat(pairs)
    return PackedBatch(ids, torch.zeros_like(ids), places, Spans.of([length] * pairs))


def texts_of(length: int, count: int) -> list[tuple[str, str]]:
    """Pairs of texts of about a number of tokens; no two texts are alike."""
    words = ["music", "bread", "train", "river", "stone", "light", "paper", "green"]
    half = (length - 3) // 2
    texts = [" ".join(words[(i * 7 + j * j) % 8] for j in range(half - 2)) + f" {i}" for i in range(2 * count)]
    return list(zip(texts[:count], texts[count:], strict=True))


def kernels(encoder: Any, batch: PackedBatch, reached: dict[str, float]) -> dict[str, dict[str, float]]:
    """What each kernel takes in a batch by the device's own clock; of Triton's also what of the ceilings it reaches."""
    costs = recorded(encoder, batch)
    graphs, encoder.graphs = encoder.graphs, None  # their kernels are one entry
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        encoder.logits(batch)
        torch.cuda.synchronize()
    encoder.graphs = graphs
    found: dict[str, dict[str, float]] = {}
    for event in profile.key_averages():
        if not (time := event.self_device_time_total):
            continue
        found[event.key] = {"us": time}
        if cost := costs.get(event.key.removesuffix("_kernel")):
            speeds = {"TFLOP/s": cost.operations / time / 1e6, "GB/s": cost.moved / time / 1e3}
            shares = {f"share of {name}": speed / reached[name] for name, speed in speeds.items()}
            found[event.key] |= {"launches": cost.launches, **speeds, **shares}
    return found


def peers(folder: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """sentence-transformers with sdpa, and with flash-attention where that is installed."""
    from sentence_transformers import CrossEncoder as Peer

    ways = {"sentence-transformers": "sdpa"}
    if device.startswith("cuda") and find_spec("flash_attn") is not None:
        ways["s-t, flash-attention"] = "flash_attention_2"
    return {
        name: Peer(folder, device=device, model_kwargs={"dtype": dtype, "attn_implementation": way})
        for name, way in ways.items()
    }


def compare(
    shape: str, folder: str, device: str, seconds: float, tokens: int, reached: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """One model at every length."""
    precision: Precision = "fp16" if device.startswith("cuda") else "fp32"
    model = CrossEncoder(folder, backend="triton", device=device, precision=precision)
    others = peers(folder, device, torch.float16 if precision == "fp16" else torch.float32)
    encoder = model.pipeline.built_encoder().encoder
    for length in LENGTHS:
        batch = batch_of(length, tokens, model.config.vocab_size)
        ready = seconds_of({"fastce": lambda batch=batch: encoder.logits(batch)}, device, seconds)  # type: ignore[misc]
        pairs = texts_of(length, 4 * len(batch.spans.lengths))
        systems: dict[str, Callable[[], object]] = {"fastce": partial(model.predict, pairs)}
        systems |= {name: partial(peer.predict, pairs, batch_size=128) for name, peer in others.items()}
        yield {
            "model": shape,
            "length": length,
            "tokens ready": len(batch.spans.lengths) / ready["fastce"],
            **{name: len(pairs) / time for name, time in seconds_of(systems, device, seconds).items()},
            "kernels": kernels(encoder, batch, reached) if device.startswith("cuda") else {},
        }


def draw(rows: list[dict[str, Any]], card: str, file: Path) -> None:
    """A bar for each model, length and system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    systems = ("tokens ready", "fastce", "sentence-transformers")
    for number, system in enumerate(systems):
        axes.bar(
            [place + 0.27 * number for place in range(len(rows))], [row[system] for row in rows], 0.25, label=system
        )
    axes.set_xticks([place + 0.27 for place in range(len(rows))], [f"{row['model']}\n{row['length']}" for row in rows])
    axes.set(yscale="log", ylabel="pairs per second", title=card)
    axes.legend(frameon=False)
    figure.savefig(file)


def main(
    folder: Annotated[Path, typer.Argument(help="Where the results go.", file_okay=False)],
    device: str = "cuda",
    shapes: str = ",".join(SHAPES),
    seconds: float = SECONDS,
    tokens: int = MAX_BATCH_TOKENS,
) -> None:
    """Measure, and write gpu.json and gpu.png."""
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else "no GPU"
    reached, rows = ceilings(device), []
    sys.stdout.write(f"{card}: {reached['TFLOP/s']:.0f} TFLOP/s in fp16, {reached['GB/s']:.0f} GB/s\n")
    sys.stdout.write(f"{'model':18}{'length':>7}{'tokens ready':>14}{'fastce':>12}{'s-t':>12}  pairs/s\n")
    for shape in shapes.split(","):
        with tempfile.TemporaryDirectory() as model:
            write_random_model(shape, Path(model))
            for row in compare(shape, model, device, seconds, tokens, reached):
                rows.append(row)
                numbers = f"{row['tokens ready']:14,.0f}{row['fastce']:12,.0f}{row['sentence-transformers']:12,.0f}"
                sys.stdout.write(f"{shape:18}{row['length']:7}{numbers}\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps({"card": card, "ceilings": reached, "rows": rows}, indent=1) + "\n")
    draw(rows, card, folder / "gpu.png")


if __name__ == "__main__":
    typer.run(main)
