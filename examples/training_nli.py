"""Fine-tunes a cross-encoder on natural language inference: contradiction, entailment or neutral.

    python examples/training_nli.py [--data FOLDER]

The folder holds snli_dev.tsv.gz, most of which is trained on, and snli_test.tsv.gz, each with a header line and the
columns label (the name of the class), premise, hypothesis. Without it, sentence-transformers/all-nli comes from the
Hugging Face Hub. With `--library sentence-transformers` the same script trains with that library.
"""

from __future__ import annotations

import typer
from pair_data import NLI, NLI_CLASSES
from pair_training import PairTask, command

from fastce.evaluation import CESoftmaxAccuracyEvaluator

main = command(
    PairTask(
        name="nli",
        source=NLI,
        num_labels=len(NLI_CLASSES),
        evaluator=CESoftmaxAccuracyEvaluator,
        evaluator_names=("AllNLI-dev", "AllNLI-test"),
        metric="Accuracy",
        both_directions=False,  # a premise and its hypothesis have different parts
        evaluation_steps=10_000,
    )
)

if __name__ == "__main__":
    typer.run(main)
