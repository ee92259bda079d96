"""Teaches a small reranker to score as a larger one does.

    python examples/training_distillation.py [--data FOLDER]

The teacher scores triples of a query, a relevant document and one that a first stage found and that is not relevant.
The student learns the margin between both scores (Hofstaetter et al., "Improving Efficient Neural Ranking Models with
Cross-Architecture Knowledge Distillation", 2020). `ranking_data.load_candidates` describes the folder; without it,
MS MARCO comes from the Hugging Face Hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from ranking_data import Candidates, load_candidates
from ranking_training import Depth, RelevantGrade, Run, train_reranker
from training_common import BatchSize, Data, Epochs, LearningRate, MaxTrain, Model, Output, Seed, UseAmp

from fastce import CrossEncoder, InputExample, losses


class Triple(NamedTuple):
    """A query, a document that answers it, and one that does not."""

    query: str
    positive: str
    negative: str


def make_triples(candidates: list[Candidates], relevant_grade: int, negatives: int) -> list[Triple]:
    """Each relevant document with the first irrelevant ones, which are the hardest.

    Args:
        candidates: Queries with documents.
        relevant_grade: Grades from this on count as relevant.
        negatives: How many irrelevant documents for each relevant one.
    """
    return [
        Triple(one.query, positive, negative)
        for one in candidates
        for positive in one.relevant(relevant_grade)
        for negative in one.irrelevant(relevant_grade)[:negatives]
    ]


def teacher_margins(teacher: Any, triples: list[Triple]) -> list[float]:
    """By how much the teacher scores the relevant document higher, in logits, `[num_triples]`."""
    positive = [(triple.query, triple.positive) for triple in triples]
    negative = [(triple.query, triple.negative) for triple in triples]
    scores = teacher.predict(positive + negative, activation_fn=torch.nn.Identity(), show_progress_bar=True)
    margins: list[float] = (scores[: len(triples)] - scores[len(triples) :]).tolist()
    return margins


def main(
    data: Data = None,
    teacher: Annotated[str, typer.Option(help="A reranker: a folder or a name on the Hub.")] = (
        "cross-encoder/ms-marco-electra-base"
    ),
    model: Model = "distilroberta-base",
    output: Output = Path("output/training_distillation"),
    epochs: Epochs = 1,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 2e-5,
    negatives: Annotated[int, typer.Option(min=1, help="Irrelevant documents for each relevant one.")] = 4,
    run: Run = "bm25",
    depth: Depth = 100,
    relevant_grade: RelevantGrade = 1,
    max_train: MaxTrain = None,
    seed: Seed = 0,
    use_amp: UseAmp = False,
) -> None:
    """Train on the teacher's margins, keep the model that ranks the development set best, and test it."""
    splits = load_candidates(data, run=run, depth=depth, relevant_grade=relevant_grade, max_train=max_train)
    typer.echo("\n".join(splits.notes))
    triples = make_triples(splits.train, relevant_grade, negatives)
    margins = teacher_margins(CrossEncoder(teacher), triples)
    train_reranker(
        model,
        losses.MarginMSELoss(),
        [InputExample(texts=list(triple), label=margin) for triple, margin in zip(triples, margins, strict=True)],
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
