"""The commands that look at one query, at other systems, and at this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import fastce
from fastce.cli.app import (
    DEFAULT_MODEL,
    BackendOption,
    BatchSizeOption,
    MaxBatchTokensOption,
    MaxLengthOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    app,
    fail,
    model_options,
    precision_option,
)
from fastce.spec import PRECISIONS

BAR_FROM = 32
"""Documents from which on their ranking shows a progress bar."""


@app.command()
def rank(
    query: Annotated[str, typer.Option("--query", help="The query.")],
    documents: Annotated[
        Path, typer.Option("--docs", exists=True, dir_okay=False, help="A text file, a document a line.")
    ],
    model: ModelOption = DEFAULT_MODEL,
    top: Annotated[int, typer.Option("--top-k", "--top", min=1, help="How many to print.")] = 10,
    batch_size: BatchSizeOption = None,
    max_batch_tokens: MaxBatchTokensOption = 16384,
    max_length: MaxLengthOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
) -> None:
    """Rank the lines of a file by their score with a query."""
    from fastce.corpus.score import load
    from fastce.pair_files import read_lines

    chosen = model_options(model, max_length, backend, precision, threads)
    try:
        encoder = load(chosen)
        texts = read_lines(str(documents))
        ranking = encoder.rank(
            query,
            texts,
            top_k=top,
            return_documents=True,
            batch_size=batch_size,
            max_batch_tokens=max_batch_tokens,
            show_progress_bar=len(texts) > BAR_FROM,
        )
    except (ValueError, OSError) as error:
        fail(str(error))
    for result in ranking:
        typer.echo(f"{result['score']:.6f}\t{result['text']}")


@app.command()
def bench(
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="A folder for the table, the JSON, the picture.")],
    pairs: Annotated[str | None, typer.Option("--pairs", help="A file of pairs, as for score.")] = None,
    lengths: Annotated[
        str, typer.Option("--lengths", help="Without --pairs: tokens of made pairs, lognormal:MEAN or fixed:LENGTH.")
    ] = "lognormal:65",
    num_pairs: Annotated[
        int | None, typer.Option("--num-pairs", min=2, help="Pairs; the whole file or 512 by default.")
    ] = None,
    peers: Annotated[
        str, typer.Option("--peers", help="Systems to compare with, separated by commas.")
    ] = "sentence-transformers,onnxruntime,openvino,ctranslate2",
    precision: Annotated[str, typer.Option("--precision", help="Precisions, separated by commas.")] = "fp32,bf16,int8",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds over all systems.")] = 5,
    documents: Annotated[
        str, typer.Option("--documents", help="Numbers of documents to time the ranking of; empty for none.")
    ] = "1,2,5,10,20,50,100",
    device: Annotated[str, typer.Option("--device", help="Where to run, cpu or cuda; on GPUs fp16 is usual.")] = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Compare with other systems: throughput, latency and memory, timed in turns, scores checked first.

    Every system is loaded in a process of its own and stays in memory until the end of the run.
    """
    from fastce.bench import report
    from fastce.bench.remote import WorkerError
    from fastce.bench.runner import Plan, run
    from fastce.environment import check_device

    chosen = {precision_option(name) for name in precision.split(",")}
    counts = [text for text in documents.split(",") if text]
    if not all(text.isdecimal() and int(text) > 0 for text in counts):
        fail(f"--documents: expected positive whole numbers, separated by commas, got {documents!r}")
    try:
        plan = Plan(
            model=model,
            peers=[name for name in peers.split(",") if name],
            precisions=[name for name in PRECISIONS if name in chosen],
            pairs=pairs,
            lengths=lengths,
            num_pairs=num_pairs,
            repeats=repeats,
            threads=threads,
            documents=[int(text) for text in counts],
            device=str(check_device(device)),
        )
        found = run(plan)
        files = report.write(found, out)
    except (ValueError, TypeError, OSError, WorkerError) as error:
        fail(str(error))
    report.show(found)
    typer.echo(f"written: {', '.join(map(str, files))}")


@app.command()
def info() -> None:
    """Print the version, the processor's instruction sets, the backends with reasons against them, and the threads."""
    import torch

    from fastce.backends.base import available_backends
    from fastce.environment import cpp_facts, default_device
    from fastce.threads import chosen_num_threads

    typer.echo(f"fastce {fastce.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    try:
        facts = cpp_facts()
    except ValueError as error:
        fail(str(error))
    for name, value in facts.items():
        typer.echo(f"{name}: {value}")
    device = default_device()
    for precision in PRECISIONS:
        for name, found in available_backends(precision=precision, device=str(device)).items():
            typer.echo(f"backend {name}, {precision} on {device}: {'; '.join(found.reasons) or 'available'}")
    if "threads" not in facts:
        typer.echo(f"threads: {chosen_num_threads() or torch.get_num_threads()}")
