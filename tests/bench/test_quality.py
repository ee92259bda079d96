"""benchmarks/end_to_end/bench_quality.py: it goes on where it stopped, and compares like with like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench_quality
import pytest
import typer
from bench_quality import SYSTEMS, TASKS, System, Task

SCORES = {"sentence-transformers": 80.0, "fastce": 81.0}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str, int]]:
    """The runs that were made, in place of training."""
    runs: list[tuple[str, str, str, int]] = []

    def trained_scores(task: Task, system: System, seed: int, common: Any) -> dict[str, float]:
        runs.append((task.name, system.name, system.precision, seed))
        return {"fp32": SCORES[system.name] + seed}

    monkeypatch.setattr(bench_quality, "trained_scores", trained_scores)
    return runs


def test_runs_are_made_once(trained: list[tuple[str, str, str, int]], tmp_path: Path) -> None:
    bench_quality.main("model", tmp_path, tmp_path / "out", seeds=1)
    assert sorted(trained) == sorted(
        (task.name, system.name, system.precision, 0) for task in TASKS for system in SYSTEMS
    )
    bench_quality.main("model", tmp_path, tmp_path / "out", seeds=3)
    assert len(trained) == len(set(trained)) == 3 * len(TASKS) * len(SYSTEMS)
    lines = (tmp_path / "out" / "quality.md").read_text().splitlines()
    assert lines[2] == "| STS-B, Spearman | sentence-transformers | fp32 | 80.00 | 81.00 | 82.00 | 81.00 | 2.00 |"
    assert len(lines) == 2 + len(TASKS) * len(SYSTEMS)


def test_a_missing_run_leaves_its_place_empty() -> None:
    runs = [
        {"task": "SNLI", "system": "fastce", "precision": "bf16", "seed": 1, "scores": {"fp32": 75.0, "int8": 74.0}}
    ]
    assert bench_quality.table(runs, range(2)).splitlines()[2:] == [
        "| SNLI, Accuracy | fastce | bf16 |  | 75.00 | 75.00 |  |"
    ]


def test_other_settings_are_refused(trained: list[tuple[str, str, str, int]], tmp_path: Path) -> None:
    bench_quality.main("model", tmp_path, tmp_path, seeds=1)
    with pytest.raises(typer.BadParameter, match=r"other settings.*'max_train': None"):
        bench_quality.main("model", tmp_path, tmp_path, seeds=1, max_train=10)
    assert json.loads((tmp_path / "quality.json").read_text())["settings"]["max_train"] is None
