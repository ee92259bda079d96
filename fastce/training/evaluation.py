"""Evaluation between the steps of training."""

from __future__ import annotations

from typing import Any

from fastce.checks import check_number
from fastce.training.model import TrainableModel
from fastce.training.options import FitOptions


class Evaluation:
    """Evaluates between steps and keeps the best model."""

    def __init__(self, model: TrainableModel, options: FitOptions):
        self.model = model
        self.options = options
        self.best_score = -float("inf")
        self.has_saved = False

    def run(self, epoch: int, steps: int) -> float | None:
        """Evaluates, tells the callback, saves a model that is better than all before.

        Args:
            epoch: The epoch, counted from 0.
            steps: Steps within the epoch; -1 at its end.

        Returns:
            The score; None without an evaluator.
        """
        evaluator, output_path = self.options.evaluator, self.options.output_path
        if evaluator is None:
            return None
        self.model.model.eval()
        result = evaluator(
            self.model, output_path=None if output_path is None else str(output_path), epoch=epoch, steps=steps
        )
        score = main_score(evaluator, result)
        metrics = result if isinstance(result, dict) else {type(evaluator).__name__: score}
        self.model.model_card_data.set_evaluation_metrics(evaluator, metrics)
        if self.options.callback is not None:
            self.options.callback(score, epoch, steps)
        self.model.model.train()
        if score > self.best_score:
            self.best_score = score
            if self.options.save_best_model and output_path is not None:
                self.model.save(output_path)
                self.has_saved = True
        return score


def main_score(evaluator: Any, result: Any) -> float:
    """The number that tells the best model: the result, or of a dictionary the evaluator's `primary_metric`.

    Raises:
        TypeError: There is no such number.
    """
    if isinstance(result, dict):
        name = getattr(evaluator, "primary_metric", None)
        if name not in result:
            raise TypeError(f"evaluator: its primary_metric {name!r} is none of its results: {', '.join(result)}")
        result = result[name]
    return float(check_number(result, "evaluator"))
