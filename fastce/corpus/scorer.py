"""Scores windows of pairs, in this process."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

import fastce
from fastce import scoring
from fastce.environment import cpp_facts
from fastce.pipeline import BatchLimits, Pairs, Tokenized, one_ahead
from fastce.ranking import best
from fastce.rescoring import Rescorer
from fastce.spec import Precision

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class ScoringOptions:
    """How pairs are scored.

    Attributes:
        top_k: How many pairs of each query are kept; None: all.
        rescore: The precision in which what may be among them is scored again; None: it is not.
    """

    top_k: int | None = None
    rescore: Precision | None = None


class Task(NamedTuple):
    """What there is to score.

    Attributes:
        pairs: The pairs.
        groups: The query of each, numbered from 0 up, int64 `[num_pairs]`.
        limits: What a batch may hold.
    """

    pairs: Pairs
    groups: np.ndarray
    limits: BatchLimits


class Scored(NamedTuple):
    """What became of a task.

    Attributes:
        kept: Which pairs have scores, in their order, int64 `[num_kept]`.
        scores: float32 `[num_kept]`, or `[num_kept, num_labels]`.
        computed: How many distinct pairs there were.
        tokens: How many tokens these have.
        rescored: How many of them were scored again.
    """

    kept: np.ndarray
    scores: np.ndarray
    computed: int
    tokens: int
    rescored: int


Advance = Callable[[int], object]
"""Told how many pairs have been computed since the last call."""


def machine_of(model: CrossEncoder) -> dict[str, str]:
    """What the last bits of a model's scores depend on, by name."""
    machine = {
        "backend": model.backend,
        "device": model.device.type,
        "processor": platform.machine(),
        "fastce": fastce.__version__,
        "torch": torch.__version__,
    }
    if model.backend == "cpp":
        machine["ISA level"] = cpp_facts()["ISA level"].split()[0]
    return machine


class Scorer(Protocol):
    """Scores tasks in this process or in others."""

    machine: dict[str, str]
    """See `machine_of`; where several models score on machines that differ, what each says."""

    def stream(self, items: Iterator[tuple[Any, Task]], advance: Advance) -> Iterator[tuple[Any, Scored]]:
        """Gives what became of each task beside what came with it, in any order, while the next ones are read."""
        ...


class LocalScorer:
    """Scores with one model.

    Args:
        model: The model.
        options: How.

    Raises:
        ValueError: The options don't go together, or with the model.
    """

    def __init__(self, model: CrossEncoder, options: ScoringOptions):
        self.machine = machine_of(model)
        self._model = model
        self._options = options
        self._rescorer = None
        if options.top_k is not None and model.num_labels != 1:
            raise ValueError(f"top_k: needs a model with one label, this one has {model.num_labels}")
        if options.rescore is not None:
            if options.top_k is None:
                raise ValueError("rescore: needs top_k; without it all scores would be those of the slower precision")
            self._rescorer = Rescorer(model.pipeline, options.rescore, model.activation_fn)

    def stream(self, items: Iterator[tuple[Any, Task]], advance: Advance) -> Iterator[tuple[Any, Scored]]:
        """See `Scorer`; in the order of the tasks."""
        pipeline, max_length = self._model.pipeline, self._model.max_length
        tokenized = ((beside, pipeline.tokenized(task.pairs, max_length), task) for beside, task in items)
        for beside, pairs, task in one_ahead(tokenized):
            yield beside, self._scored(pairs, task.groups, task.limits, advance)

    def _scored(self, pairs: Tokenized, groups: np.ndarray, limits: BatchLimits, advance: Advance) -> Scored:
        top_k, rescored = self._options.top_k, 0
        if self._rescorer is not None and top_k is not None:
            kept, scores, rescored = self._rescorer.top(pairs, groups, top_k, limits, advance)
            order = np.argsort(kept, kind="stable")
            kept, scores = kept[order], scores[order]
        else:
            logits = self._model.pipeline.compute(pairs, limits, advance)
            with torch.inference_mode():
                scores = (
                    scoring.scores_from_logits(logits, self._model.activation_fn, apply_softmax=False).cpu().numpy()
                )
            kept = np.arange(len(scores)) if top_k is None else np.sort(best(scores, groups, top_k))
            scores = scores[kept]
        return Scored(kept, scores, len(pairs.pairs), int(pairs.pairs.lengths.sum()), rescored)
