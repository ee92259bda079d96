"""The command line: score, rank, bench, info. Torch is imported only when a command needs it."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import fastce
from fastce.spec import PRECISIONS, Precision

INTERRUPTED = 130
"""What shells expect of a program that was interrupted: 128 + SIGINT."""


class Commands(TyperGroup):
    """The commands; an interrupt ends each with one line."""

    def invoke(self, context: Any) -> Any:
        """Runs the chosen command."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or "interrupted", INTERRUPTED)


app = typer.Typer(
    name="fastce",
    cls=Commands,
    help="Score pairs of texts with cross-encoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelOption = Annotated[str, typer.Option("--model", help="A model's directory or Hub id.")]
BatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Pairs per batch at most; by default tokens alone decide.")
]
MaxBatchTokensOption = Annotated[int, typer.Option("--max-batch-tokens", min=1, help="Tokens per batch at most.")]
BAR_FROM = 32
"""Documents from which on their ranking shows a progress bar."""
MaxLengthOption = Annotated[int | None, typer.Option("--max-length", min=1, help="Tokens of a pair at most.")]
BackendOption = Annotated[str, typer.Option("--backend", help="A backend's name, or auto.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="fp32, bf16, fp16 or int8.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all by default.")]


@app.command()
def score(
    model: ModelOption,
    source: Annotated[
        str, typer.Option("--in", help="Pairs: a .jsonl, .csv or .tsv file; - or a pipe gives JSON lines.")
    ],
    target: Annotated[str, typer.Option("--out", help="Scores: a .jsonl file, or - for standard output.")] = "-",
    text_columns: Annotated[
        str | None,
        typer.Option("--text-columns", help="The two fields of a pair, such as a,b; numbers from 1 without a header."),
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The first line of a .csv or .tsv file is a pair, too.")
    ] = False,
    batch_size: BatchSizeOption = None,
    max_batch_tokens: MaxBatchTokensOption = 16384,
    max_length: MaxLengthOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
) -> None:
    """Score pairs, streaming: one JSON line {"score": ...} for each pair, in order; {"scores": [...]} for classes.

    A JSON line is a list of two texts or an object. Objects, and the rows of CSV and TSV files with a header line, have
    the pair under well-known names, such as query and document or sentence1 and sentence2, or under --text-columns.
    Files are UTF-8, or UTF-16 or UTF-32 with a byte-order mark.
    """
    from fastce.pair_files import read_pairs
    from fastce.streaming import score_stream

    if source != "-" and (not Path(source).exists() or Path(source).is_dir()):
        fail(f"--in: no file {source}")
    columns = None if text_columns is None else two_names(text_columns)
    encoder = load(model, max_length, backend, precision, threads)
    try:
        pairs = read_pairs(source, columns, has_header=not no_header)
        score_stream(encoder, source, target, pairs, batch_size=batch_size, max_batch_tokens=max_batch_tokens)
    except BrokenPipeError:
        raise  # nobody reads on, which is no fault; the command line ends quietly
    except (ValueError, TypeError, OSError) as error:
        fail(str(error))


@app.command()
def rank(
    model: ModelOption,
    query: Annotated[str, typer.Option("--query", help="The query.")],
    documents: Annotated[
        Path, typer.Option("--docs", exists=True, dir_okay=False, help="A text file, a document a line.")
    ],
    top: Annotated[int, typer.Option("--top-k", "--top", min=1, help="How many to print.")] = 10,
    batch_size: BatchSizeOption = None,
    max_batch_tokens: MaxBatchTokensOption = 16384,
    max_length: MaxLengthOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
) -> None:
    """Rank the lines of a file by their score with a query."""
    from fastce.pair_files import read_lines

    encoder = load(model, max_length, backend, precision, threads)
    try:
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
    except ValueError as error:
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
    threads: ThreadsOption = None,
) -> None:
    """Compare with other systems: throughput, latency and memory, timed in turns, scores checked first.

    Every system is loaded in a process of its own and stays in memory until the end of the run.
    """
    from fastce.bench import report
    from fastce.bench.remote import WorkerError
    from fastce.bench.runner import Plan, run

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


def load(model: str, max_length: int | None, backend: str, precision: str, threads: int | None) -> fastce.CrossEncoder:
    """Loads the model, quietly, or ends the program with what is wrong."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        encoder = fastce.ModelOptions(
            model,
            max_length=max_length,
            backend=backend,
            precision=precision_option(precision),
            num_threads=threads,
        ).load()
    except (ValueError, OSError) as error:
        fail(str(error))
    if not encoder.pipeline.checkpoint.has_head():
        fail(f"{model} has no classification head, its scores would be random; train it first")
    return encoder


def two_names(text: str) -> tuple[str, str]:
    """Two names that a comma separates, or the end of the program; a name with a comma in it stands in quotes."""
    names = next(csv.reader([text]), [])
    if len(names) != 2:
        fail(f"--text-columns: expected two names, separated by a comma, got {text!r}")
    return names[0], names[1]


def precision_option(text: str) -> Precision:
    """A precision that the command line names, or the end of the program."""
    from fastce.checks import check_precision

    try:
        return check_precision(text)
    except ValueError as error:
        fail(f"--{error}")


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the program with a message on standard error."""
    typer.echo(f"fastce: {message}", err=True)
    raise typer.Exit(status)


def print_version(wanted: bool) -> None:
    """Prints the version and ends the program, where that is wanted."""
    if wanted:
        typer.echo(f"fastce {fastce.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Score pairs of texts with cross-encoders."""


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
