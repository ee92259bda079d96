"""One training script for every task on pairs of texts; training_stsbenchmark.py and its like say which task."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pair_data import PairSource, load_pairs, with_both_directions
from training_common import (
    BatchSize,
    Data,
    Epochs,
    LearningRate,
    MaxTrain,
    Model,
    Output,
    Seed,
    UseAmp,
    train,
)

FIT = {"fastce": "fit", "sentence-transformers": "old_fit"}
"""What the method is called in each library."""


@dataclass(frozen=True)
class PairTask:
    """A task on pairs of texts.

    Attributes:
        name: For the default folder to save in.
        source: Where its data is.
        num_labels: 1 to learn a score, else how many classes there are.
        evaluator: The class of the evaluator that chooses the best model and tests it.
        evaluator_names: What the evaluator calls the data for either.
        metric: What the evaluator returns.
        both_directions: Whether to train on each pair in both orders by default.
        evaluation_steps: Evaluate also after so many steps; 0 evaluates after each epoch only.
    """

    name: str
    source: PairSource
    num_labels: int
    evaluator: Any
    evaluator_names: tuple[str, str]
    metric: str
    both_directions: bool
    evaluation_steps: int


def command(task: PairTask) -> Callable[..., None]:
    """Makes the main function of a script, for `typer.run`."""

    def main(
        data: Data = None,
        model: Model = "distilroberta-base",
        output: Output = Path("output") / f"training_{task.name}",
        epochs: Epochs = 4,
        batch_size: BatchSize = 16,
        learning_rate: LearningRate = 2e-5,
        both_directions: Annotated[bool, typer.Option(help="Whether to train on each pair in both orders.")] = (
            task.both_directions
        ),
        max_train: MaxTrain = None,
        seed: Seed = 0,
        use_amp: UseAmp = False,
        library: Annotated[str, typer.Option(help="fastce or sentence-transformers.")] = "fastce",
    ) -> None:
        """Train, keep the model with the best score on the development set, print its score on the test set."""
        if library not in FIT:
            raise typer.BadParameter(f"--library: expected one of {', '.join(FIT)}, got {library!r}")
        splits = load_pairs(task.source, data, max_train)
        typer.echo("\n".join(splits.notes))
        package = importlib.import_module(library.replace("-", "_"))
        torch.manual_seed(seed)
        cross_encoder = package.CrossEncoder(model, num_labels=task.num_labels)
        dev_name, test_name = task.evaluator_names
        train(
            getattr(cross_encoder, FIT[library]),
            with_both_directions(splits.train) if both_directions else splits.train,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            output=output,
            evaluator=task.evaluator.from_input_examples(splits.dev, name=dev_name),
            evaluation_steps=task.evaluation_steps,
            use_amp=use_amp,
        )
        test = task.evaluator.from_input_examples(splits.test, name=test_name)
        score = test(package.CrossEncoder(str(output)), str(output))
        typer.echo(f"{task.metric} on the test set: {100 * score:.2f}")
        for precision in ("bf16", "int8") if library == "fastce" else ():
            try:
                score = test(package.CrossEncoder(str(output), precision=precision))
            except ValueError as error:
                typer.echo(f"Not tested in {precision}: {error}")
            else:
                typer.echo(f"{task.metric} on the test set in {precision}: {100 * score:.2f}")

    return main
