"""Many threads on one model, each with calls of another kind: no error, and each score as if asked for alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PAIRS

from fastce import CrossEncoder

pytest.importorskip("fastce._core", reason="the C++ module was not built")

Tiny = Callable[..., str]
ACTIVATIONS = (torch.nn.Identity(), torch.nn.Sigmoid(), torch.nn.Tanh(), torch.nn.Softmax(dim=-1))
MAX_LENGTHS = (8, 17, 40, 64)
BATCH_SIZES = (1, 3, 32, 1000)


def call(model: CrossEncoder, seed: int) -> tuple[list[tuple[str, str]], dict[str, Any], np.ndarray]:
    """Scores some pairs in some way."""
    chooser = random.Random(seed)
    pairs = [(first, second * chooser.randint(1, 6)) for first, second in chooser.sample(PAIRS, chooser.randint(1, 40))]
    options = {"batch_size": chooser.choice(BATCH_SIZES), "activation_fn": chooser.choice(ACTIVATIONS)}
    return pairs, options, np.asarray(model.predict(pairs, **options))


@pytest.mark.parametrize(
    ("precision", "seconds"),
    [("fp32", 2), ("int8", 2), pytest.param("bf16", 60, marks=pytest.mark.stress)],
)
def test_sixty_four_threads_on_one_model(tiny: Tiny, precision: Any, seconds: float) -> None:
    """Models of several `max_length`s share the weights' folder, as the length belongs to the model."""
    models = [
        CrossEncoder(tiny("bert", num_labels=3), backend="cpp", precision=precision, max_length=length)
        for length in MAX_LENGTHS
    ]
    end = time.monotonic() + seconds

    def work(thread: int) -> list[tuple[int, int, np.ndarray]]:
        """Models, seeds and what came of them."""
        found, seed = [], thread
        while time.monotonic() < end:
            found.append((seed % len(models), seed, call(models[seed % len(models)], seed)[2]))
            seed += 64 + 1
        return found

    with ThreadPoolExecutor(64) as threads:
        results = [result for results in threads.map(work, range(64)) for result in results]
    assert len(results) >= 64
    alone: dict[tuple[int, int], np.ndarray] = {}
    for model, seed, scores in random.Random(0).sample(results, min(len(results), 150)):
        _, options, again = call(models[model], seed)
        assert np.array_equal(scores, again), (model, seed, options)
        alone[model, seed] = again
    assert len(alone) > 32
