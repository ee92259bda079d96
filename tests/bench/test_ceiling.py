from __future__ import annotations

import sys
from time import sleep
from types import SimpleNamespace

import pytest

from fastce.bench.ceiling import peak_operations_per_second


def test_the_best_measurement_times_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def peak_kernel(number_format: str, isa: str, steps: int) -> float:
        asked.append((number_format, isa))
        sleep(0.01)
        return float(len(asked))

    core = SimpleNamespace(peak_kernel=peak_kernel, choose_level=lambda: "avx2")
    monkeypatch.setitem(sys.modules, "fastce._core", core)
    assert peak_operations_per_second("fp16", 3) == 3 * len(asked)
    assert set(asked) == {("bf16", "avx2")}


def test_nothing_where_it_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastce._core", SimpleNamespace(choose_level=lambda: "avx2"))
    assert peak_operations_per_second("fp32", 2) is None
    monkeypatch.setitem(sys.modules, "fastce._core", None)
    assert peak_operations_per_second("fp32", 2) is None
