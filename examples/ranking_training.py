"""What the examples that train rerankers share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pair_data import Splits
from ranking_data import Candidates
from training_common import train

from fastce import CrossEncoder
from fastce.evaluation import CrossEncoderRerankingEvaluator

Run = Annotated[str, typer.Option(help="Which first-stage ranking of the folder; without such a file, BM25 ranks.")]
Depth = Annotated[int, typer.Option(min=1, help="How many documents of a ranking to rerank.")]
RelevantGrade = Annotated[int, typer.Option(min=1, help="Grades from this on count as relevant; TREC DL: 2.")]


def train_reranker(
    model: str,
    loss: Any,
    examples: list[Any],
    splits: Splits[Candidates],
    *,
    relevant_grade: int,
    seed: int,
    output: Path,
    **options: Any,
) -> None:
    """Trains, keeps the model that ranks the development set best, and prints how it ranks the test set.

    Args:
        model: Where to start from.
        loss: The loss for the examples.
        examples: What to train on.
        splits: Their dev and test choose and test the model.
        relevant_grade: Grades from this on count as relevant.
        seed: Of the order of the examples and of new weights.
        output: Where to save.
        **options: More arguments for `training_common.train`.
    """
    torch.manual_seed(seed)
    student = CrossEncoder(model, num_labels=1, activation_fn=torch.nn.Identity())  # scores are free in size
    dev, test = (
        ranking_evaluator(part, name, relevant_grade) for part, name in ((splits.dev, "dev"), (splits.test, "test"))
    )
    train(student.fit, examples, output=output, evaluator=dev, loss_fct=loss, **options)
    results = test(CrossEncoder(str(output)), str(output))
    before, after = (100 * results[f"test_{ranking}ndcg@10"] for ranking in ("base_", ""))
    typer.echo(f"nDCG@10 on the test set: {after:.2f}, without reranking {before:.2f}")


def ranking_evaluator(candidates: list[Candidates], name: str, relevant_grade: int) -> CrossEncoderRerankingEvaluator:
    """An evaluator for how much better a model ranks what the first stage has found."""
    samples = [
        {"query": one.query, "positive": one.relevant(relevant_grade), "documents": one.documents} for one in candidates
    ]
    return CrossEncoderRerankingEvaluator(samples, name=name)
