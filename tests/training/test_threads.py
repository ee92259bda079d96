from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from training_runs import FAST, StoppedError, distance, loader, weights_after

from fastce import CrossEncoder
from fastce.training import threads
from fastce.training.threads import Load, SharedThreads, measured_load

Tiny = Callable[..., str]


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine with four CPUs."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "usable_cpus", lambda: 4)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("own", "idle", "expected"),
    [
        (3.9, 0.0, 4),  # all four work, or spin
        (0.5, 3.4, 4),  # waiting for data
        (2.7, 0.1, 3),  # one busy process
        (2.0, 0.0, 2),  # four of them
        (0.4, 0.0, 1),  # very many
        (9.0, 0.0, 4),  # other threads of this process
        (2.0, 70.0, 4),  # threads for a part of a large machine
    ],
)
def test_threads_are_what_others_leave(
    four_threads: None, monkeypatch: pytest.MonkeyPatch, own: float, idle: float, expected: int
) -> None:
    loads = iter([Load(0.0, 100.0, 50.0), Load(2.0, 100.0 + 2 * own, 50.0 + 2 * idle)])
    monkeypatch.setattr(threads, "measured_load", lambda: next(loads))
    with SharedThreads() as shared:
        assert torch.get_num_threads() == 4
        shared.update()
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


def test_threads_come_back_when_the_others_have_gone(four_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([Load(0.0, 0.0, 0.0), Load(1.0, 2.0, 0.0), Load(2.0, 4.0, 0.0), Load(3.0, 6.0, 1.9)])
    monkeypatch.setattr(threads, "measured_load", lambda: next(loads))
    numbers = []
    with SharedThreads() as shared:
        for _ in range(3):
            shared.update()
            numbers.append(torch.get_num_threads())
    assert numbers == [2, 2, 4]


@pytest.mark.parametrize("text", [None, "", "cpu 1 2 3 4 5 6\n", "cpu9999 1 2 3 4 5 6\n"])
def test_where_nobody_tells_the_load_nothing_changes(
    four_threads: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    monkeypatch.setattr(threads, "STAT", tmp_path / "stat")
    if text is not None:
        threads.STAT.write_text(text)
    assert measured_load() is None
    with SharedThreads() as shared:
        shared.update()
        assert torch.get_num_threads() == 4


def test_the_load_is_the_machines() -> None:
    before = measured_load()
    assert before is not None
    while time.perf_counter() < before.clock + 0.3:
        pass
    after = measured_load()
    assert after is not None
    seconds = after.clock - before.clock
    assert 0.0 < after.own - before.own <= seconds * (len(os.sched_getaffinity(0)) + 0.1)
    assert -0.02 <= after.idle - before.idle <= seconds * len(os.sched_getaffinity(0)) + 0.1


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(number):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def test_training_beside_busy_processes_takes_fewer_threads(tiny: Tiny) -> None:
    before = torch.get_num_threads()
    if before < 2:
        pytest.skip("PyTorch has one thread here")
    end = time.perf_counter() + 30

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if torch.get_num_threads() < before:
            raise StoppedError
        assert time.perf_counter() < end, "as many threads as ever"
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    with busy_processes(len(os.sched_getaffinity(0))), pytest.raises(StoppedError):
        CrossEncoder(tiny("bert")).fit(loader(), loss_fct=loss, epochs=10_000, **FAST)
    assert torch.get_num_threads() == before


def test_training_takes_no_more_threads_than_it_has_cpus(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cpus", lambda: 1)
    before, seen = torch.get_num_threads(), set()

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    CrossEncoder(tiny("bert")).fit(loader(), loss_fct=loss, **FAST)
    assert seen == {1}
    assert torch.get_num_threads() == before


def test_weights_do_not_depend_on_the_number_of_threads(tiny: Tiny, four_threads: None) -> None:
    numbers = iter([4, 1, 3, 2] * 100)

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(next(numbers))
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    directory = tiny("bert", hidden_size=64, num_attention_heads=4, intermediate_size=96)
    changing = weights_after(directory, loader(), loss_fct=loss, seed=1)
    torch.set_num_threads(1)
    assert distance(changing, weights_after(directory, loader(), seed=1)) == 0.0
