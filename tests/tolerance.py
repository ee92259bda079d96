"""Every tolerance of the test suite, with the reason for its size."""

from __future__ import annotations

import torch

LOGITS = 1e-5
"""Logits in float32 against transformers, times max(1, |logit|): both round some hundred dependent sums to
2^-24, in another order. The promise that the README makes."""

SAME_PAIR = 1e-6
"""Scores of one pair in different batches: the matrix products may be blocked differently, which is the
rounding of one dot product."""

GRADIENT = 1e-4
"""Gradients against transformers, relative to the largest of a parameter: the logits' error,
amplified going backwards."""

TRAINED_WEIGHTS = 1e-5
"""Weights after ten steps against a transformers loop, with SGD, whose steps are proportional to the gradients."""

BF16_LOGITS = 0.1
"""Logits of the two-layer models in bfloat16, times max(1, |logit|): some ten roundings in a row,
2^-8 each."""


def close_to(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    """Whether `actual` is within `tolerance` x max(1, |expected|) everywhere, with equal shapes."""
    return actual.shape == expected.shape and bool(
        ((actual - expected).abs() <= tolerance * expected.abs().clamp(min=1.0)).all()
    )


def dot_product_bound(terms: int, largest_product: float, epsilon: float = torch.finfo(torch.float32).eps) -> float:
    """Error of a dot product in floating point: each of `terms` products and sums rounds once (Higham, section 3.1)."""
    return epsilon * (terms + 1) * terms * largest_product / (1 - epsilon * terms)
