"""How long a model takes to load, what threads bring, and how memory grows over one long call.

    python benchmarks/end_to_end/bench_scaling.py --model FOLDER --pairs pairs.jsonl --precision int8

Thread counts take turns; the medians of their ratios to one thread count.
"""

from __future__ import annotations

import os
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from fastce.pair_files import read_pairs
from fastce.spec import Precision

SHORT = ("a short query", "a short document")
"""What memory is measured with: it must not grow with the number of pairs, and long ones would only take longer."""


def resident_memory() -> float:
    """Of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(
    model: Annotated[str, typer.Option(help="A folder or a name on the Hub.")],
    pairs: Annotated[Path, typer.Option(exists=True, help="A file of pairs, as for fastce score.")],
    precision: Annotated[Precision, typer.Option()] = "int8",
    num_pairs: Annotated[int, typer.Option(min=1, help="The first so many of the file.")] = 400,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds over all numbers of threads.")] = 5,
    long_call: Annotated[int, typer.Option(min=0, help="Pairs of the long call; 0 leaves it out.")] = 100_000,
) -> None:
    """Measure loading, threads and memory."""
    from fastce import CrossEncoder, _core

    chosen = list(islice(read_pairs(str(pairs)), num_pairs))
    start = time.perf_counter()
    cross_encoder = CrossEncoder(model, precision=precision, device="cpu")
    cross_encoder.predict(SHORT)
    typer.echo(f"loading and a first score, imports apart: {time.perf_counter() - start:.2f} s")

    counts = range(1, _core.usable_cpus() + 1)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            cross_encoder.pipeline.num_threads = count
            start = time.perf_counter()
            cross_encoder.predict(chosen)
            seconds[count].append(time.perf_counter() - start)
    for count in counts:
        ratio = statistics.median(one / some for one, some in zip(seconds[1], seconds[count], strict=True))
        typer.echo(
            f"{count} threads: {num_pairs / statistics.median(seconds[count]):.1f} pairs/s, {ratio:.2f} times one"
        )

    if long_call:
        before = resident_memory()
        cross_encoder.predict([(SHORT[0], f"{SHORT[1]} {number}") for number in range(long_call)])
        typer.echo(f"{long_call} pairs in one call: memory grew by {resident_memory() - before:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
