"""Every metric, once: from scores and labels to numbers, named as sentence-transformers 6.2 names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastce.evaluation.thresholds import Cuts, best_accuracy, best_f1

ACCURACY_COLUMNS = {"accuracy": "Accuracy"}
BINARY_COLUMNS = {
    "accuracy": "Accuracy",
    "accuracy_threshold": "Accuracy_Threshold",
    "f1": "F1",
    "f1_threshold": "F1_Threshold",
    "precision": "Precision",
    "recall": "Recall",
    "average_precision": "Average_Precision",
}
CORRELATION_COLUMNS = {"pearson": "Pearson_Correlation", "spearman": "Spearman_Correlation"}
"""The CSV columns of the metrics."""

BINARY_AVERAGES = {"f1": "binary"}
MULTICLASS_AVERAGES = {"f1_macro": "macro", "f1_micro": "micro", "f1_weighted": "weighted"}
"""How scikit-learn calls the ways to average F1 over classes."""


def accuracy(classes: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of pairs whose predicted class is the right one.

    Args:
        classes: `[num_pairs]`.
        labels: `[num_pairs]`.
    """
    return float(np.mean(classes == labels))


def binary_metrics(
    scores: NDArray[Any], labels: NDArray[Any], find_cuts: Callable[[NDArray[Any], NDArray[Any]], Cuts]
) -> dict[str, float]:
    """Accuracy and F1 at the thresholds that are best for them, and the average precision.

    Args:
        scores: `[num_pairs]`.
        labels: `[num_pairs]`, each 0 or 1.
        find_cuts: Which thresholds to consider; see `fastce.evaluation.thresholds`.
    """
    cuts = find_cuts(scores, labels)
    best, threshold = best_accuracy(cuts)
    f1, precision, recall, f1_threshold = best_f1(cuts)
    return {
        "accuracy": best,
        "accuracy_threshold": threshold,
        "f1": f1,
        "f1_threshold": f1_threshold,
        "precision": precision,
        "recall": recall,
        "average_precision": average_precision(scores, labels),
    }


def f1_metrics(classes: NDArray[Any], labels: NDArray[Any], averages: Mapping[str, str]) -> dict[str, float]:
    """F1, once for each way to average over the classes.

    Args:
        classes: The predicted ones, `[num_pairs]`.
        labels: The right ones, `[num_pairs]`.
        averages: `BINARY_AVERAGES` or `MULTICLASS_AVERAGES`.
    """
    from sklearn.metrics import f1_score

    return {name: float(f1_score(labels, classes, average=average)) for name, average in averages.items()}


def correlations(scores: NDArray[Any], gold: NDArray[Any]) -> dict[str, float]:
    """Pearson's and Spearman's correlation, NaN where all scores are equal.

    Args:
        scores: `[num_pairs]`.
        gold: The scores that the pairs should have, on any scale, `[num_pairs]`.
    """
    from scipy.stats import pearsonr, spearmanr

    return {"pearson": float(pearsonr(gold, scores)[0]), "spearman": float(spearmanr(gold, scores)[0])}


def average_precision(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """The mean over the positive items of the precision at their scores; items of equal score rank as one.

    Args:
        scores: `[num_items]`.
        labels: `[num_items]`, each 0 or 1.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores))


def reciprocal_rank(scores: NDArray[Any], is_relevant: NDArray[np.bool_], at_k: int, *, wins_ties: bool) -> float:
    """One divided by the rank of the best relevant document; 0 where it is not among the first `at_k`.

    Args:
        scores: `[num_documents]`.
        is_relevant: `[num_documents]`, at least one of them True.
        at_k: The lowest rank that counts.
        wins_ties: Whether a relevant document ranks before, rather than behind, the others of its score.
    """
    best, others = scores[is_relevant].max(), scores[~is_relevant]
    rank = 1 + np.count_nonzero(others > best if wins_ties else others >= best)
    return float(1 / rank) if rank <= at_k else 0.0


def ndcg(scores: NDArray[Any], is_relevant: NDArray[np.bool_], at_k: int) -> float:
    """The normalised discounted cumulative gain of the first `at_k` documents, the mean over the orders of ties.

    Args:
        scores: `[num_documents]`.
        is_relevant: `[num_documents]`, at least one of them True.
        at_k: The lowest rank that counts.
    """
    from sklearn.metrics import ndcg_score

    if len(scores) == 1:  # the one order is the best one, but scikit-learn refuses it
        return 1.0
    return float(ndcg_score([is_relevant], [scores], k=at_k))


def ranking_metrics(scores: NDArray[Any], is_relevant: NDArray[np.bool_], at_k: int) -> dict[str, float]:
    """Average precision, reciprocal rank and nDCG of one query, all 0 without a relevant document.

    Args:
        scores: `[num_documents]`.
        is_relevant: `[num_documents]`.
        at_k: The lowest rank that counts, but for the average precision, to which all count.
    """
    found = bool(is_relevant.any())
    return {
        "map": average_precision(scores, is_relevant) if found else 0.0,
        f"mrr@{at_k}": reciprocal_rank(scores, is_relevant, at_k, wins_ties=False) if found else 0.0,
        f"ndcg@{at_k}": ndcg(scores, is_relevant, at_k) if found else 0.0,
    }
