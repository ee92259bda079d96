"""What it saves to compute once what pairs begin with: ranking with a language model, with and without, in turns.

python benchmarks/end_to_end/bench_prefixes.py MODEL --pairs pairs.jsonl --precision int8

The pairs' queries come with a prompt where `ranking_pairs.py --template` has written them.
"""

from __future__ import annotations

import json
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import torch
import typer

from fastce import CrossEncoder
from fastce.checks import check_precision
from fastce.packing import pack
from fastce.pipeline import Window
from fastce.prefixes import PREFIX_MEMORY, order_by_beginning, share_prefixes

DOCUMENTS = 100


def tokens_left(model: CrossEncoder, query: str, documents: list[str]) -> tuple[int, int]:
    """Tokens of a ranking, and those that are computed."""
    pairs = model.pipeline.tokenize(Window([query] * len(documents), documents), model.max_length)
    batch = pack(pairs, order_by_beginning(pairs), None)
    shared = share_prefixes(batch, PREFIX_MEMORY // model.pipeline.built_encoder().encoder.shared_bytes)
    return sum(batch.spans.lengths), sum(shared.spans.lengths)


def seconds(model: CrossEncoder, query: str, documents: list[str]) -> tuple[float, torch.Tensor]:
    """Time and scores of one ranking."""
    start = perf_counter()
    scores = model.predict([(query, document) for document in documents], convert_to_tensor=True)
    return perf_counter() - start, scores


def peak_memory() -> int:
    """Peak memory of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def main(
    model: str,
    pairs: Annotated[Path, typer.Option("--pairs", help="JSON lines of a query and a document.")],
    precision: Annotated[str, typer.Option("--precision")] = "int8",
    threads: Annotated[int | None, typer.Option("--threads")] = None,
    repeats: Annotated[int, typer.Option("--repeats")] = 3,
) -> None:
    """Rank a query's documents, cut to several lengths: the shorter they are, the more of a pair is shared."""
    lines = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    query = next(iter(groupby(lines, key=itemgetter(0))))[0]
    texts = [document for _, document in lines]
    loaded: Any = CrossEncoder(model, precision=check_precision(precision), num_threads=threads)
    encoder = loaded.pipeline.built_encoder().encoder
    shared_bytes = encoder.shared_bytes
    for words in (10, 30, 100):
        documents = [" ".join(text.split()[:words]) for text in texts]
        documents = [f"{documents[number % len(documents)]} {number}" for number in range(DOCUMENTS)]
        times: dict[int, list[float]] = {0: [], shared_bytes: []}
        scores = {}
        for _ in range(repeats):
            for encoder.shared_bytes in times:
                time, scores[encoder.shared_bytes] = seconds(loaded, query, documents)
                times[encoder.shared_bytes].append(time)
        encoder.shared_bytes = shared_bytes
        total, left = tokens_left(loaded, query, documents)
        alone, together = (median(times[key]) for key in (0, shared_bytes))
        is_equal = torch.equal(scores[0], scores[shared_bytes])
        typer.echo(
            f"{DOCUMENTS} documents of up to {words} words: {total} tokens, {1 - left / total:.0%} left out; "
            f"{alone:.2f} s without, {together:.2f} s with, {alone / together:.2f} times as fast; "
            f"{'equal' if is_equal else 'OTHER'} scores; peak {peak_memory()} MB"
        )


if __name__ == "__main__":
    typer.run(main)
