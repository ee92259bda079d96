"""The command that serves scores over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from fastce.cli.app import (
    BackendOption,
    MaxLengthOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    app,
    fail,
    model_options,
)


@app.command()
def serve(
    model: ModelOption,
    host: Annotated[str, typer.Option("--host", help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8080,
    served_names: Annotated[
        list[str] | None,
        typer.Option("--served-model-name", help="A name for the model in requests and answers; may be repeated."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes, among which the CPUs are shared out.")
    ] = 1,
    max_batch_tokens: Annotated[
        int | None,
        typer.Option("--max-batch-tokens", min=1, help="Tokens per batch at most; by default 2,048 a thread."),
    ] = None,
    max_documents: Annotated[
        int, typer.Option("--max-documents", min=1, help="Documents of a request at most.")
    ] = 1000,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", min=1, help="Documents that may be waiting; beyond, clients get 429.")
    ] = 2048,
    max_body_bytes: Annotated[int, typer.Option("--max-body-bytes", min=1, help="Bytes of a request at most.")] = 2
    * 2**20,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that a request may take.")] = 60.0,
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar="FASTCE_API_KEY", help="What clients must send as bearer token.")
    ] = None,
    max_length: MaxLengthOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "fp32",
    device: Annotated[
        str | None, typer.Option("--device", help="Where to run, such as cpu or cuda; by default the best at hand.")
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Serve scores over HTTP, to clients of TEI, Cohere, Jina and vLLM, and a page for people at /.

    Stops on Ctrl-C or SIGTERM, when what was accepted is answered.
    """
    from fastce.environment import check_device
    from fastce.server.settings import Settings

    options = model_options(model, max_length, backend, precision, threads)
    try:
        if device is not None:
            options = replace(options, device=str(check_device(device)))
        settings = Settings(
            served_names=tuple(served_names or ()),
            max_batch_tokens=max_batch_tokens,
            max_documents=max_documents,
            max_waiting=max_waiting,
            max_body_bytes=max_body_bytes,
            timeout=timeout,
            api_key=api_key,
        )
        from fastce.server import run
    except ValueError as error:
        name, _, wrong = str(error).partition(":")
        fail(f"--{name.replace('_', '-')}:{wrong}")
    except ImportError as error:
        fail(f"serve needs the extra server: pip install 'fastce[server]' ({error})")
    raise typer.Exit(run.serve(options, settings, host, port, workers))
