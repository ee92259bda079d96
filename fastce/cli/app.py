"""The program, the options that commands share, and how they end."""

from __future__ import annotations

import csv
import re
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import fastce
from fastce.spec import Precision

DEFAULT_MODEL = "cross-encoder/ms-marco-MiniLM-L6-v2"

PARAMETERS = {"columns": "text_columns", "device": "devices", "num_threads": "threads", "output": "target"}
"""Arguments in Python to the parameters of commands that say them, where these are called otherwise."""


class FailedError(Exception):
    """A command can't do what it was told; the message says why, and may begin with the argument that is wrong."""


class Commands(TyperGroup):
    """The commands, and how each ends where it can't do its work: with one line on standard error.

    The exit code is 2 where an option is wrong, else 1; after a signal what shells expect, 128 + its number.
    """

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
            end(str(interrupt) or "interrupted", 128 + next(iter(received), signal.SIGINT))
        except FailedError as error:
            usage = usage_error(str(error), self.commands[context.invoked_subcommand].params)
            end(usage or str(error), 2 if usage else 1)
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
    if is_to_be_fetched(model):
        typer.echo(f"fastce: {model} is not in the cache yet and will be fetched from the Hugging Face Hub", err=True)
    return fastce.ModelOptions(model, max_length=max_length, backend=backend, precision=chosen, num_threads=threads)


def is_to_be_fetched(model: str) -> bool:
    """Whether a model is neither a directory nor in the Hub's cache, and the Hub may be asked."""
    from huggingface_hub import constants, try_to_load_from_cache

    from fastce.checkpoints.loading import DEFAULT_ORGANIZATION

    if constants.HF_HUB_OFFLINE or Path(model).exists():
        return False
    with suppress(ValueError):  # it is no name that the Hub could have
        names = [model] if "/" in model else [model, f"{DEFAULT_ORGANIZATION}/{model}"]
        return not any(isinstance(try_to_load_from_cache(name, "config.json"), str) for name in names)
    return False


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
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Ends the program with a message on standard error."""
    raise FailedError(message)


def end(message: str, status: int) -> NoReturn:
    """Ends the program with a message on standard error and an exit code."""
    typer.echo(f"fastce: {message}", err=True)
    raise typer.Exit(status)


def usage_error(message: str, parameters: Iterable[Any]) -> str | None:
    """A message that begins with an argument's name, arguments called as the command's options; None for another one.

    Args:
        message: Such as "rescore: needs top_k".
        parameters: Those of the command.
    """
    options = {parameter.name: parameter.opts[0] for parameter in parameters}
    options |= {name: options[other] for name, other in PARAMETERS.items() if other in options}
    by_option = {option: option for option in options.values()}
    found = re.match(r"([-\w]+)(?=[:=]| is | and )", message)
    name = None if found is None else (options | by_option).get(found[1])
    if found is None or name is None:
        return None
    return name + re.sub(r"\b[a-z]+_\w+", lambda other: options.get(other[0], other[0]), message[found.end() :])


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
