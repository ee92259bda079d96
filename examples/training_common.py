"""What the training examples share: the options of their command lines, and training itself."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from torch.utils.data import DataLoader

Data = Annotated[
    Path | None, typer.Option(exists=True, file_okay=False, help="The folder with the files; default the Hub.")
]
Model = Annotated[str, typer.Option(help="Where to start from: a folder or a name on the Hub.")]
Output = Annotated[Path, typer.Option(help="Where to save the best model and the results.")]
Epochs = Annotated[int, typer.Option(min=1)]
BatchSize = Annotated[int, typer.Option(min=1, help="Examples per step.")]
LearningRate = Annotated[float, typer.Option(help="After the warm-up of a tenth of all steps.")]
MaxTrain = Annotated[int | None, typer.Option(min=1, help="Train on the first so many only; default all.")]
Seed = Annotated[int, typer.Option(help="Of the order of the examples and of new weights.")]
UseAmp = Annotated[bool, typer.Option("--use-amp", help="Compute in bfloat16 where that loses little.")]

WARMUP_SHARE = 0.1


def train(
    fit: Any,
    examples: list[Any],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    output: Path,
    **options: Any,
) -> None:
    """Trains a model, saves the best one, and says how fast it went.

    Args:
        fit: The method `fit` of a CrossEncoder, or one with the same arguments.
        examples: What to train on.
        epochs: How often to train on each.
        batch_size: How many make one step.
        learning_rate: After the warm-up.
        output: Where to save.
        **options: More arguments for `fit`.
    """
    loader: DataLoader[Any] = DataLoader(cast(Any, examples), shuffle=True, batch_size=batch_size)
    start = time.perf_counter()
    fit(
        train_dataloader=loader,
        epochs=epochs,
        warmup_steps=math.ceil(len(loader) * epochs * WARMUP_SHARE),
        optimizer_params={"lr": learning_rate},
        output_path=str(output),
        **options,
    )
    seconds = time.perf_counter() - start
    number = len(examples) * epochs
    if int(os.environ.get("RANK", "0")) > 0:
        raise typer.Exit  # of several processes, the main one tests the model
    typer.echo(f"Trained on {number} examples in {seconds:.0f} s, {number / seconds:.1f} per second with evaluation")
