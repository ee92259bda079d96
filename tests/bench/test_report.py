from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastce.bench import report
from fastce.bench.machine import describe_machine, describe_versions
from fastce.bench.results import Report, Result

PNG = b"\x89PNG\r\n\x1a\n"


def made_up() -> Report:
    return Report(
        date="2026-01-31",
        model={"name": "tiny", "type": "bert", "layers": 2, "hidden": 60},
        workload={
            "source": "pairs.jsonl",
            "num_pairs": 100,
            "tokens": 5000,
            "mean": 50,
            "p50": 45,
            "p90": 80,
            "max": 99,
        },
        threads=2,
        operations=4 * 10**9,
        ceilings={"fp32": 4e9, "int8": None},
        machine={"cpu": "A Processor", "cores": 4},
        versions={"fastce": "1"},
        results=[
            Result(
                "fastce",
                "fp32",
                spearman=1.0,
                peak_memory=200_000_000,
                seconds=[2.0, 1.0, 9.0],
                latency={1: [0.002, 0.004, 0.003], 10: [0.02]},
            ),
            Result("fastce", "int8", spearman=0.9991, peak_memory=100_000_000, seconds=[0.5]),
            Result("sentence-transformers", "fp32", spearman=1.0, peak_memory=600_000_000, seconds=[4.0]),
            Result("openvino", "int8", problem="wrong: 3 scores are not finite", spearman=None),
        ],
        left_out=["onnxruntime is left out; to install it: pip install onnxruntime onnx"],
    )


def test_table() -> None:
    lines = report.markdown(made_up()).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(report.COLUMNS)
    assert lines[2:6] == [
        "| fastce | fp32 | 50.0 | 2,500 | 2.0 | 50% | 200 | 1.00000 | 2.00 |",
        "| fastce | int8 | 200.0 | 10,000 | 8.0 |  | 100 | 0.99910 | 8.00 |",
        "| sentence-transformers | fp32 | 25.0 | 1,250 | 1.0 | 25% | 600 | 1.00000 | 1.00 |",
        "| openvino | int8 | wrong |  |  |  |  |  |  |",
    ]
    text = "\n".join(lines)
    for words in (
        "tiny (2 layers, width 60), 100 pairs, pairs.jsonl, mean 50 tokens",
        "A Processor, 2 of 4 cores, 2026-01-31",
        "measured: fp32 4 Gop/s.",
        "openvino int8: wrong: 3 scores are not finite.",
        "pip install onnxruntime onnx.",
    ):
        assert words in text


def test_files(tmp_path: Path) -> None:
    files = report.write(made_up(), tmp_path / "new")
    assert [file.name for file in files] == ["benchmark.md", "benchmark.json", "benchmark.png"]
    assert files[0].read_text() == report.markdown(made_up())
    assert files[2].read_bytes().startswith(PNG)
    values = json.loads(files[1].read_text())
    assert values["date"] == "2026-01-31"
    first = values["results"][0]
    assert (first["seconds"], first["latency"]["1"]) == ([2.0, 1.0, 9.0], [0.002, 0.004, 0.003])
    assert first["figures"] == {"pairs": 50.0, "tokens": 2500.0, "operations": 2e9, "share": 0.5, "ratio": 2.0}


def test_no_picture_without_matplotlib_or_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untimed = made_up()
    untimed.results[:] = [Result("fastce", "fp32", problem="broken")]
    assert "benchmark.png" not in [file.name for file in report.write(untimed, tmp_path)]
    assert "| fastce | fp32 | failed |" in report.markdown(untimed)
    monkeypatch.setattr("fastce.bench.figure.find_spec", lambda name: None)
    assert "benchmark.png" not in [file.name for file in report.write(made_up(), tmp_path)]


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(made_up())
    printed = capsys.readouterr().out
    assert "sentence-transformers" in printed
    assert "200.0" in printed
    assert "pip install onnxruntime onnx." in printed


def test_machine_and_versions() -> None:
    machine = describe_machine()
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["memory_gb"] > 0
    assert {"python", "fastce", "torch"} <= describe_versions().keys()
