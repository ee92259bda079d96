"""Whether a system's scores are right, asked before its times are believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from fastce.spec import Precision

LEAST_SPEARMAN: dict[Precision, float] = {"fp32": 0.999, "bf16": 0.98, "fp16": 0.98, "int8": 0.9, "fp8": 0.9}
"""Below this, something other than rounding is at work. How good a precision is, the report's own column shows."""

LARGEST_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-3}
"""Between logits; fp32 systems differ in the order of sums only."""


@dataclass(frozen=True)
class Verdict:
    """What came of the comparison with fp32.

    Attributes:
        problem: Why the scores are wrong; empty where they are right.
        spearman: Rank correlation with the reference, the lowest of all labels; None where it makes no sense.
        largest_difference: Greatest absolute difference of two logits.
    """

    problem: str
    spearman: float | None = None
    largest_difference: float | None = None


def check_scores(logits: np.ndarray, reference: np.ndarray, precision: Precision) -> Verdict:
    """Compares logits with transformers' in fp32.

    Args:
        logits: `[num_pairs, num_labels]`.
        reference: The same of the reference.
        precision: What the system ran in.
    """
    if logits.shape != reference.shape:
        return Verdict(f"scores of shape {logits.shape}, expected {reference.shape}")
    if not np.isfinite(logits).all():
        return Verdict(f"{np.count_nonzero(~np.isfinite(logits))} scores are not finite")
    difference = float(np.abs(logits - reference).max())
    correlation = lowest_spearman(logits, reference)
    largest = LARGEST_DIFFERENCE.get(precision)
    problem = ""
    if largest is not None and difference > largest:
        problem = f"scores differ from fp32 by {difference:.2g}, more than {largest:g}"
    elif correlation is not None and not correlation >= LEAST_SPEARMAN[precision]:
        problem = f"Spearman {correlation:.4f} against fp32, less than {LEAST_SPEARMAN[precision]:g}"
    return Verdict(problem, correlation, difference)


def lowest_spearman(logits: np.ndarray, reference: np.ndarray) -> float | None:
    """The lowest rank correlation of all labels; None where the reference has nothing to rank.

    A constant column in `logits` alone counts as no correlation.
    """
    columns = [number for number in range(reference.shape[1]) if np.ptp(reference[:, number]) > 0]
    if not columns:
        return None
    return min(
        float(spearmanr(logits[:, number], reference[:, number]).statistic) if np.ptp(logits[:, number]) > 0 else 0.0
        for number in columns
    )
