"""Two checkouts of fastce against each other: each in a process of its own, in turns, medians of the ratios.

    git worktree add ../before COMMIT    # and build its C++ module there: python setup.py build_ext --inplace
    python benchmarks/end_to_end/bench_versions.py --before ../before --model FOLDER --pairs pairs.jsonl

Both score the same pairs, the scores are compared first, and then train on them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fastce.pair_files import read_pairs

WORKER = """
import json, os, sys, time
from fastce import CrossEncoder, InputExample
import fastce
model, precision, threads = sys.argv[1:4]
start = time.perf_counter()
encoder = CrossEncoder(model, precision=precision, num_threads=int(threads))
loading = time.perf_counter() - start
assert fastce.__file__.startswith(os.getcwd()), fastce.__file__
print(json.dumps(loading), flush=True)
for line in sys.stdin:
    pairs, repeats, training = json.loads(line)
    scores, examples = [], [InputExample(texts=pair, label=float(n % 2)) for n, pair in enumerate(pairs)]
    batches = [examples[first : first + 16] for first in range(0, len(examples), 16)]
    start = time.perf_counter()
    for _ in range(repeats):
        if training:
            encoder.fit(batches, warmup_steps=0, use_amp=precision == "bf16", show_progress_bar=False)
        else:
            scores = encoder.predict(pairs, show_progress_bar=False).tolist()
    print(json.dumps([(time.perf_counter() - start) / repeats, scores]), flush=True)
"""


class Version:
    """A checkout with a model, in a process of its own.

    Args:
        checkout: Its folder.
        arguments: The model's folder, the precision, the threads.
    """

    def __init__(self, checkout: Path, *arguments: str):
        environment = os.environ | {"PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, *arguments],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.loading: float = self._answer()

    def run(self, pairs: list[Any], repeats: int = 1, *, training: bool = False) -> tuple[float, list[float]]:
        """Seconds of a call of `predict`, and the scores; or of `fit`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([pairs, repeats, training]) + "\n")
        self.process.stdin.flush()
        seconds, scores = self._answer()
        return seconds, scores

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def main(
    before: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The other checkout, built in place.")],
    model: Annotated[str, typer.Option(help="A model's folder.")],
    pairs: Annotated[Path, typer.Option(exists=True, help="A file of pairs, as for fastce score.")],
    num_pairs: Annotated[int, typer.Option(min=1, help="The first so many.")] = 500,
    precision: Annotated[str, typer.Option(help="Precisions, separated by commas.")] = "fp32,bf16,int8",
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 7,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Compare this checkout with another one."""
    chosen = [list(pair) for pair, _ in zip(read_pairs(str(pairs)), range(num_pairs), strict=False)]
    here = Path(__file__).resolve().parents[2]
    typer.echo("| precision | pairs a call | before, pairs/s | now, pairs/s | now / before | largest difference |")
    typer.echo("|---|---:|---:|---:|---:|---:|")
    for name in precision.split(","):
        versions = [Version(folder.resolve(), model, name, str(threads)) for folder in (before, here)]
        for count in (1, 10, 100, num_pairs):
            part = chosen[:count]
            results = [version.run(part)[1] for version in versions]
            difference = max(abs(a - b) for a, b in zip(*results, strict=True))
            calls = max(1, round(100 / count))
            turns = [[version.run(part, calls)[0] for version in versions] for _ in range(repeats)]
            ratio = statistics.median(old / new for old, new in turns)
            old, new = (count / statistics.median(turn[side] for turn in turns) for side in (0, 1))
            typer.echo(f"| {name} | {count} | {old:.1f} | {new:.1f} | {ratio:.3f} | {difference:.1e} |")
        if name in ("fp32", "bf16"):
            turns = [[version.run(chosen, training=True)[0] for version in versions] for _ in range(repeats + 1)][1:]
            ratio = statistics.median(old / new for old, new in turns)
            old, new = (num_pairs / statistics.median(turn[side] for turn in turns) for side in (0, 1))
            typer.echo(f"| {name} | fit, 16 a step | {old:.1f} | {new:.1f} | {ratio:.3f} | |")
        for version in versions:
            version.process.kill()


if __name__ == "__main__":
    typer.run(main)
