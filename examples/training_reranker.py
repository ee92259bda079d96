"""Trains a reranker on whole lists: a query, documents that a first stage found for it, and how relevant each is.

    python examples/training_reranker.py [--data FOLDER]

LambdaLoss (Wang et al., "The LambdaLoss Framework for Ranking Metric Optimization", 2018) bounds the nDCG of each
list. `ranking_data.load_candidates` describes the folder; without it, MS MARCO comes from the Hugging Face Hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from ranking_data import Candidates, load_candidates
from ranking_training import Depth, RelevantGrade, Run, train_reranker
from training_common import BatchSize, Data, Epochs, LearningRate, MaxTrain, Model, Output, Seed, UseAmp

from fastce import InputExample, losses


def make_list(candidates: Candidates, relevant_grade: int, size: int) -> InputExample:
    """The best documents of a query, up to half of the list, then the first irrelevant ones, which are the hardest.

    Args:
        candidates: A query with documents.
        relevant_grade: Grades from this on count as relevant.
        size: How many documents at most.

    Returns:
        An example of a query with documents, whose label is a list of their grades.
    """
    graded = list(zip(candidates.documents, candidates.grades, strict=True))
    relevant = sorted((one for one in graded if one[1] >= relevant_grade), key=lambda one: -one[1])[: size // 2]
    irrelevant = [one for one in graded if one[1] < relevant_grade][: size - len(relevant)]
    documents, grades = zip(*relevant, *irrelevant, strict=True)
    label: Any = list(grades)
    return InputExample(texts=[candidates.query, *documents], label=label)


def main(
    data: Data = None,
    model: Model = "distilroberta-base",
    output: Output = Path("output/training_reranker"),
    epochs: Epochs = 1,
    batch_size: BatchSize = 4,
    learning_rate: LearningRate = 2e-5,
    list_size: Annotated[int, typer.Option(min=2, help="Documents for each query in training.")] = 16,
    run: Run = "bm25",
    depth: Depth = 100,
    relevant_grade: RelevantGrade = 1,
    max_train: MaxTrain = None,
    seed: Seed = 0,
    use_amp: UseAmp = False,
) -> None:
    """Train on lists, keep the model that ranks the development set best, and test it."""
    splits = load_candidates(data, run=run, depth=depth, relevant_grade=relevant_grade, max_train=max_train)
    typer.echo("\n".join(splits.notes))
    train_reranker(
        model,
        losses.LambdaLoss(),
        [make_list(candidates, relevant_grade, list_size) for candidates in splits.train],
        splits,
        relevant_grade=relevant_grade,
        seed=seed,
        output=output,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        use_amp=use_amp,
    )


if __name__ == "__main__":
    typer.run(main)
