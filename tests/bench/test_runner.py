from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_models import PAIRS
from typer.testing import CliRunner

from fastce.bench.remote import RemoteWorker, environment
from fastce.bench.results import Report
from fastce.bench.runner import Plan, choose_systems, run
from fastce.bench.systems.base import SYSTEMS, Entry, Task
from fastce.cli import app

STUBS = {
    "wrong": Entry("stub_systems:Wrong", ("fp32",)),
    "broken": Entry("stub_systems:Broken", ("fp32",)),
    "dying": Entry("stub_systems:Dying", ("fp32",)),
    "converting": Entry("stub_systems:Converting", ("fp32",), converts=True),
    "absent": Entry("stub_systems:Wrong", ("fp32",), {"no_such_module": "no-such-package", "json": "json"}),
}


@pytest.fixture(scope="module")
def stubs() -> Iterator[None]:
    """Systems that misbehave, in the table, and known to new processes."""
    with pytest.MonkeyPatch.context() as patch:
        folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
        for name, entry in STUBS.items():
            patch.setitem(SYSTEMS, name, entry)
        yield


@pytest.fixture(scope="module")
def found(stubs: None, tiny: Callable[..., str]) -> Report:
    """A run of fastce, sentence-transformers and all stubs on a tiny model."""
    plan = Plan(
        model=tiny("bert"),
        peers=["sentence-transformers", *STUBS],
        precisions=["fp32"],
        lengths="lognormal:20",
        num_pairs=12,
        repeats=2,
        threads=1,
        documents=[1, 3],
    )
    return run(plan)


def test_right_systems_are_timed(found: Report) -> None:
    for result in found.results[:2]:
        assert result.problem == ""
        assert result.spearman == pytest.approx(1.0)
        assert result.largest_difference is not None
        assert result.largest_difference < 1e-4
        assert len(result.seconds) == 2
        assert result.latency.keys() == {1, 3}
        assert all(min(times) > 0 for times in result.latency.values())
        assert result.peak_memory is not None
        assert result.loaded_memory is not None
        assert result.peak_memory >= result.loaded_memory > 10_000_000
        figures = found.figures(result)
        assert figures["pairs"] == pytest.approx(12 / np.median(result.seconds))
        assert figures["operations"] is not None
    assert found.figures(found.results[1])["ratio"] == 1.0


def test_others_are_reported_without_a_time(found: Report) -> None:
    problems = {result.system: result.problem for result in found.results[2:]}
    assert problems.keys() == {"wrong", "broken", "dying", "converting"}
    assert problems["wrong"].startswith("wrong: scores differ from fp32 by ")
    assert problems["broken"] == "ValueError: no such arithmetic here"
    assert problems["dying"] == "its process ended with exit code 3"
    assert problems["converting"].startswith("wrong: scores differ")
    assert found.results[-1].settings == "converted"
    assert not any(result.seconds or result.latency for result in found.results[2:])


def test_absent_systems_are_left_out_with_the_way_to_install_them(found: Report) -> None:
    assert found.left_out == ["absent is left out; to install it: pip install no-such-package"]


def test_systems_run_in_the_precisions_that_they_have() -> None:
    results, _ = choose_systems(["fastce", "sentence-transformers", "fastce"], ["fp32", "int8"])
    assert [result.name for result in results] == ["fastce fp32", "fastce int8", "sentence-transformers fp32"]
    with pytest.raises(ValueError, match="no system 'tensorflow'; known are fastce, transformers,"):
        choose_systems(["tensorflow"], ["fp32"])
    results, left_out = choose_systems(["fastce", "sentence-transformers", "onnxruntime"], ["fp16"], "cuda")
    assert [result.name for result in results] == ["fastce fp16", "sentence-transformers fp16"]
    assert left_out[0].startswith("onnxruntime is left out")


def test_workers_keep_to_their_cores(stubs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    variables = environment(3)
    assert "OMP_WAIT_POLICY" not in variables
    assert variables["OMP_NUM_THREADS"] == "3"
    task = Task("", "fp32", 1, 64, [], tmp_path)
    with RemoteWorker("stub_systems:Wrong", task, PAIRS[:4], tmp_path / "log") as worker:
        assert worker.call("load")[0] == "a stub"
        assert worker.call("scores").tolist() == [[0.0], [1.0], [2.0], [3.0]]
        assert len(os.sched_getaffinity(worker.process.pid)) == 1
    assert worker.process.returncode == 0


def test_bad_arguments(tiny: Callable[..., str], tmp_path: Path) -> None:
    usual = {"--model": tiny("bert"), "--out": str(tmp_path / "out"), "--peers": ""}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(["a", None]) + "\n")
    for name, value, message in (
        ("--precision", "fp32,fp64", "--precision: expected one of fp32, bf16, fp16, int8, fp8, got 'fp64'"),
        ("--documents", "1,0", "--documents: expected positive whole numbers"),
        ("--lengths", "normal:3", "--lengths: expected lognormal:MEAN_TOKENS"),
        ("--peers", "tensorflow", "--peers: no system 'tensorflow'"),
        ("--pairs", str(tmp_path / "pairs.jsonl"), "line 1[1]: expected str, got None"),
        ("--pairs", str(tmp_path / "none.jsonl"), "none.jsonl"),
        ("--model", str(tmp_path / "none"), "none"),
    ):
        arguments = [text for option in (usual | {name: value}).items() for text in option]
        result = CliRunner().invoke(app, ["bench", *arguments])
        assert result.exit_code == (2 if message.startswith("--") else 1), result.output
        assert message in result.stderr
    assert not (tmp_path / "out").exists()
