"""The command that writes models for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastce.cli.app import MaxLengthOption, ModelOption, app, model_options
from fastce.cli.corpus import errors_told


@app.command()
def export(
    model: ModelOption,
    folder: Annotated[Path, typer.Option("--onnx", help="A folder for the model, with onnx/model.onnx in it.")],
    max_length: MaxLengthOption = None,
) -> None:
    """Write a model as ONNX, and check it with ONNX Runtime.

    The folder is a whole model: sentence-transformers, optimum and others take onnx/model.onnx and the tokenizer
    beside it. Its logits are in float32, without the activation function; batches may have any size and length.
    """
    from fastce.export import FILE, export_onnx

    options = model_options(model, max_length, backend="auto", precision="fp32", threads=None)
    with errors_told():
        found = export_onnx(options, folder)
    typer.echo(f"{folder / FILE}: its logits differ by {found:.1e} at most from those of fastce")
