"""The top of a ranking as exact arithmetic gives it, at a cost near that of fast arithmetic.

All pairs are scored fast, and those that may belong to the top are scored again. Which ones may is told by the errors
of the fast logits, measured on pairs that were scored twice: a pair whose fast logit, raised by the largest error that
is to be expected, stays below the k-th best exact one is not among the k best.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fastce.pipeline import BatchLimits, Pipeline, Tokenized
from fastce.ranking import best, kth_largest
from fastce.scoring import ActivationFn, apply_by_row, is_plain
from fastce.spec import Precision

logger = logging.getLogger(__name__)

SAMPLE = 64
"""Pairs to measure errors on before the first ranking, beside those at its top."""

SLACK = 1.25
"""How far an error is taken to be from the mean at most, in units of the largest one measured on that side: the extreme
of 10^6 normal deviates is 4.9 standard deviations from their mean, that of 10^4 is 3.9."""

KEEPS_ORDER = (
    *(nn.Identity, nn.Sigmoid, nn.LogSigmoid, nn.Tanh),
    *(nn.ReLU, nn.Softplus, nn.Hardsigmoid, nn.Hardtanh),
)
"""Activation functions under which no larger logit has a smaller score."""


@dataclass
class Errors:
    """Fast minus exact logits of one model, as far as they were measured.

    Attributes:
        measured: How many.
        total: Their sum.
        lowest: The least.
    """

    measured: int = 0
    total: float = 0.0
    lowest: float = np.inf

    def add(self, differences: np.ndarray) -> None:
        """Adds what was measured, `[num_pairs]`, as far as it is numbers."""
        differences = differences[np.isfinite(differences)]
        if not len(differences):
            return
        self.measured += len(differences)
        self.total += float(differences.sum(dtype=np.float64))
        self.lowest = min(self.lowest, float(differences.min()))

    @property
    def bound(self) -> float:
        """How much a fast logit may be below the exact one."""
        if not self.measured:
            return np.inf
        mean = self.total / self.measured
        return -(mean - SLACK * (mean - self.lowest))

    def __str__(self) -> str:
        return f"fast logits at most {self.bound:.4f} too low, as measured on {self.measured} pairs"


class Top(NamedTuple):
    """The best pairs of each group.

    Attributes:
        kept: Their numbers, by group, best first, int64 `[num_kept]`.
        scores: Their exact scores, float32 `[num_kept]`.
        rescored: How many distinct pairs were scored exactly.
    """

    kept: np.ndarray
    scores: np.ndarray
    rescored: int


class Rescorer:
    """Ranks with one model in two precisions.

    Args:
        pipeline: The model; its precision is the fast one.
        exact: The exact one.
        activation_fn: Logits to scores.
        fast: In place of the pipeline's own precision.

    Raises:
        ValueError: The activation function does not keep the order of the logits, or both precisions are one.
    """

    def __init__(
        self, pipeline: Pipeline, exact: Precision, activation_fn: ActivationFn, fast: Precision | None = None
    ):
        if not (is_plain(activation_fn) and isinstance(activation_fn, KEEPS_ORDER)):
            known = ", ".join(kind.__name__ for kind in KEEPS_ORDER)
            raise ValueError(
                f"rescore: expected an activation function that keeps the order ({known}), got {activation_fn!r}"
            )
        self.pipeline = pipeline
        self.fast: Precision = fast or pipeline.precision
        if self.fast == exact:
            raise ValueError(f"rescore: the scores are in {exact} to begin with")
        self.exact: Precision = exact
        self.activation_fn = activation_fn

    @property
    def errors(self) -> Errors:
        """What was measured so far of the model with its weights as they are."""
        return self.pipeline.built_encoder(precision=self.fast).errors.setdefault(self.exact, Errors())

    def top(
        self,
        tokenized: Tokenized,
        groups: np.ndarray,
        top_k: int,
        limits: BatchLimits,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Top:
        """Finds the exact top of each group.

        Args:
            tokenized: The pairs.
            groups: The group of each pair, from 0 up, int64 `[num_pairs]`.
            top_k: How many of each group.
            limits: What a batch may hold.
            advance: Told of fast scored pairs; see `Pipeline.compute`.
        """
        fast = self._logits(tokenized, limits, self.fast, advance)
        errors = self.errors
        logits = np.zeros_like(fast)  # exact ones, where known
        is_known = np.zeros(len(fast), dtype=bool)
        chosen = np.union1d(best(fast, groups, top_k), np.flatnonzero(~np.isfinite(fast)))  # what says nothing, too
        if errors.measured < SAMPLE:  # from the lowest to the highest
            evenly = np.linspace(0, len(fast) - 1, min(SAMPLE, len(fast))).astype(np.int64)
            chosen = np.union1d(chosen, np.argsort(fast, kind="stable")[evenly])
        known, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        while len(chosen):
            logits[chosen] = self._logits(tokenized.chosen(chosen), limits, self.exact)
            is_known[chosen] = True
            errors.add(fast[chosen] - logits[chosen])
            known = np.flatnonzero(is_known)
            scores = self._scores(logits[known])
            kth = kth_largest(scores, groups[known], top_k, int(groups.max()) + 1)
            # A pair that reaches the k-th one's score and no more ranks higher where it comes first.
            reaches = self._scores(fast + np.float32(errors.bound)) >= kth[groups]
            chosen = np.flatnonzero(reaches & ~is_known)
        order = best(scores, groups[known], top_k)
        rescored = len(np.unique(tokenized.distinct[known]))
        logger.info("%d of %d pairs were scored again in %s; %s", rescored, len(tokenized.pairs), self.exact, errors)
        return Top(known[order], scores[order], rescored)

    def _logits(
        self,
        tokenized: Tokenized,
        limits: BatchLimits,
        precision: Precision,
        advance: Callable[[int], object] = lambda _: None,
    ) -> np.ndarray:
        logits = self.pipeline.compute(tokenized, limits, advance, precision)
        return logits[:, 0].cpu().numpy()

    def _scores(self, logits: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores = apply_by_row(self.activation_fn, torch.from_numpy(logits)[:, None])
        return scores[:, 0].numpy()
