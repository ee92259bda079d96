"""Fine-tunes a cross-encoder to tell whether two questions ask the same: a score from 0 to 1.

    python examples/training_quora_duplicate_questions.py [--data FOLDER]

The folder holds quora_dev.tsv.gz, most of which is trained on, and quora_test.tsv.gz, each with a header line and the
columns label (0 or 1), first question, second question. Without it, sentence-transformers/quora-duplicates comes from
the Hugging Face Hub. With `--library sentence-transformers` the same script trains with that library.
"""

from __future__ import annotations

import typer
from pair_data import QUORA
from pair_training import PairTask, command

from fastce.evaluation import CEBinaryClassificationEvaluator

main = command(
    PairTask(
        name="quora_duplicate_questions",
        source=QUORA,
        num_labels=1,
        evaluator=CEBinaryClassificationEvaluator,
        evaluator_names=("Quora-dev", "Quora-test"),
        metric="Average precision",
        both_directions=True,
        evaluation_steps=5000,
    )
)

if __name__ == "__main__":
    typer.run(main)
