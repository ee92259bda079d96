"""The program, the options that commands share, and how they end."""

from __future__ import annotations

import csv
import signal
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import fastce
from fastce.spec import Precision


class Commands(TyperGroup):
    """The commands; a signal to stop ends each with one line and the exit code that shells expect, 128 + its number."""

    def invoke(self, context: Any) -> Any:
        """Runs the chosen command."""
        received: list[int] = []

        def stop(number: int, _: object) -> None:
            received.append(number)
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, stop)
        try:
            return super().invoke(context)
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or "interrupted", 128 + next(iter(received), signal.SIGINT))
        finally:
            signal.signal(signal.SIGTERM, before)


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
MaxLengthOption = Annotated[int | None, typer.Option("--max-length", min=1, help="Tokens of a pair at most.")]
BackendOption = Annotated[str, typer.Option("--backend", help="A backend's name, or auto.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="fp32, bf16, fp16, int8, or fp8 (newer GPUs).")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of a process; all by default.")
]


def model_options(
    model: str, max_length: int | None, backend: str, precision: str, threads: int | None
) -> fastce.ModelOptions:
    """What a model is loaded with; it will be loaded quietly."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    chosen = precision_option(precision)
    return fastce.ModelOptions(model, max_length=max_length, backend=backend, precision=chosen, num_threads=threads)


def two_names(text: str) -> tuple[str, str]:
    """Two names that a comma separates, or the end of the program; a name with a comma in it stands in quotes."""
    names = names_of(text)
    if len(names) != 2:
        fail(f"--text-columns: expected two names, separated by a comma, got {text!r}")
    return names[0], names[1]


def names_of(text: str) -> list[str]:
    """Names that commas separate."""
    return next(csv.reader([text]), [])


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
