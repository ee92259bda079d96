"""`predict` with every backend and precision, and sentence-transformers beside it, on made pairs.

Scores are checked before anything is timed. `pytest benchmarks --benchmark-only -k predict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from random_model import write_random_model

from fastce import CrossEncoder, available_backends
from fastce.bench.checks import check_scores
from fastce.bench.operations import count_operations, program_of
from fastce.bench.systems.base import SYSTEMS, Task, make_system
from fastce.bench.workload import Workload, make_workload
from fastce.spec import Precision

SHAPE = "minilm-l6"
NUM_PAIRS = 64
LENGTHS = "lognormal:65"
ROUNDS = 5
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")

Score = Callable[[], np.ndarray]


class Case(NamedTuple):
    """A model with pairs, and what transformers makes of them."""

    task: Task
    workload: Workload
    reference: np.ndarray
    operations: int


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    from transformers import AutoConfig, AutoTokenizer

    folder = tmp_path_factory.mktemp(SHAPE)
    write_random_model(SHAPE, folder)
    workload = make_workload(
        AutoTokenizer.from_pretrained(folder), 512, source=None, distribution=LENGTHS, num_pairs=NUM_PAIRS
    )
    network = program_of(AutoConfig.from_pretrained(folder))
    assert network is not None
    task = Task(str(folder), "fp32", torch.get_num_threads(), 512, [], folder)
    reference = make_system(SYSTEMS["transformers"].path)
    reference.load(task)
    operations = count_operations(network, workload.lengths)
    return Case(task, workload, reference.score(workload.pairs), operations)


def measure(benchmark: Any, case: Case, precision: Precision, score: Score) -> None:
    """Checks the scores, times them, and notes the rates."""
    assert check_scores(score(), case.reference, precision).problem == ""
    benchmark.pedantic(score, rounds=ROUNDS, warmup_rounds=1)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["pairs/s"] = round(NUM_PAIRS / seconds, 1)
    benchmark.extra_info["Gop/s"] = round(case.operations / seconds / 1e9, 1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", available_backends())
def test_predict(benchmark: Any, case: Case, backend: str, precision: Precision) -> None:
    if not (found := available_backends(precision=precision)[backend]):
        pytest.skip(f"{backend} does not run {precision}: {'; '.join(found.reasons)}")
    model = CrossEncoder(
        case.task.model, device="cpu", backend=backend, precision=precision, activation_fn=torch.nn.Identity()
    )
    measure(benchmark, case, precision, lambda: model.predict(case.workload.pairs)[:, None])


@pytest.mark.parametrize("precision", SYSTEMS["sentence-transformers"].precisions)
def test_predict_of_sentence_transformers(benchmark: Any, case: Case, precision: Precision) -> None:
    system = make_system(SYSTEMS["sentence-transformers"].path)
    system.load(replace(case.task, precision=precision))
    measure(benchmark, case, precision, lambda: system.score(case.workload.pairs))
