"""Fine-tunes a cross-encoder on the STS benchmark: a score from 0 to 1 for how alike two sentences are.

    python examples/training_stsbenchmark.py [--data FOLDER]

The folder holds stsb_train.tsv.gz, stsb_dev.tsv.gz and stsb_test.tsv.gz, each with a header line and the columns score
(0 to 5), first sentence, second sentence. Without it, sentence-transformers/stsb comes from the Hugging Face Hub. With
`--library sentence-transformers` the same script trains with that library.
"""

from __future__ import annotations

import typer
from pair_data import STSB
from pair_training import PairTask, command

from fastce.evaluation import CECorrelationEvaluator

main = command(
    PairTask(
        name="stsbenchmark",
        source=STSB,
        num_labels=1,
        evaluator=CECorrelationEvaluator,
        evaluator_names=("sts-dev", "sts-test"),
        metric="Spearman",
        both_directions=True,
        evaluation_steps=0,
    )
)

if __name__ == "__main__":
    typer.run(main)
