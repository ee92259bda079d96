"""Training on a machine that others use as well: what threads cost that have to share a CPU.

    python benchmarks/end_to_end/bench_contention.py --model FOLDER --pairs pairs.jsonl

The ways to choose a number of threads take turns, on the machine as it is and beside a process that keeps one CPU busy.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import typer

from fastce.pair_files import read_pairs
from fastce.threads import torch_threads
from fastce.training.threads import SharedThreads

BATCH_SIZE = 16


WAYS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "all threads": lambda: patch.object(SharedThreads, "update"),
    "counted anew": nullcontext,
    "one thread": lambda: torch_threads(1),
}
"""Ways to choose the number of threads; the second one is what `fit` does."""


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that does nothing, as fast as it can."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


NEIGHBOURS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "alone": nullcontext,
    "one busy process": busy_process,
}


def main(
    model: Annotated[str, typer.Option(help="Where to start from: a folder or a name on the Hub.")],
    pairs: Annotated[Path, typer.Option(exists=True, help="A file of pairs, as for fastce score.")],
    num_pairs: Annotated[int, typer.Option(min=BATCH_SIZE, help="The first so many of the file.")] = 96,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds over all ways.")] = 5,
    amp: Annotated[bool, typer.Option(help="Train in bfloat16.")] = False,
) -> None:
    """Train with each number of threads, in turns."""
    import torch
    from torch.utils.data import DataLoader

    from fastce import CrossEncoder, InputExample

    cross_encoder = CrossEncoder(model, num_labels=1, device="cpu")
    chosen = islice(read_pairs(str(pairs)), num_pairs)
    examples: Any = [InputExample(texts=list(pair), label=number % 5 / 4) for number, pair in enumerate(chosen)]

    def speed(count: int) -> float:
        loader: Any = DataLoader(examples[:count], batch_size=BATCH_SIZE)
        start = time.perf_counter()
        cross_encoder.fit(loader, warmup_steps=0, use_amp=amp, show_progress_bar=False)
        return count / (time.perf_counter() - start)

    speed(2 * BATCH_SIZE)
    speeds: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for neighbour, surroundings in NEIGHBOURS.items():
            for name, way in WAYS.items():
                with surroundings(), way():
                    speeds.setdefault((neighbour, name), []).append(speed(num_pairs))
    typer.echo(f"{torch.get_num_threads()} threads; pairs/s, median of {repeats}, and the range")
    for (neighbour, name), found in speeds.items():
        typer.echo(f"{neighbour}, {name}: {statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})")


if __name__ == "__main__":
    typer.run(main)
