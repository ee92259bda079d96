"""`make bench-gpu` on a device that is not there: every path of it, so that the first GPU is not the first try."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernel_check import DEVICE

gpu: Any = pytest.importorskip("gpu", reason="benchmarks are not on the path")


@pytest.mark.skipif(DEVICE != "cpu", reason="with a GPU there is the real one")
def test_a_run_writes_a_table_a_file_and_a_picture(
    tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    events = [SimpleNamespace(key=key, self_device_time_total=5.0) for key in ("add_norm_forward_kernel", "gemm")]

    @contextmanager
    def profile(activities: object) -> Any:
        yield SimpleNamespace(key_averages=lambda: events)

    for owner, name, value in (
        (gpu, "write_random_model", lambda shape, folder: shutil.copytree(tiny("bert"), folder, dirs_exist_ok=True)),
        (gpu, "LENGTHS", (9,)),
        (gpu, "ROUNDS", 1),
        (gpu, "ceilings", lambda device: {"TFLOP/s": 2.0, "GB/s": 4.0}),
        (torch.profiler, "profile", profile),
        (torch.cuda, "synchronize", lambda device=None: None),
        (torch.cuda, "get_device_name", lambda device: "A card"),
    ):
        monkeypatch.setattr(owner, name, value)
    whole = gpu.compare

    def on_cpu(shape: str, folder: str, device: str, *others: Any) -> Any:
        for row in whole(shape, folder, "cpu", *others):
            encoder = gpu.CrossEncoder(folder, backend="triton", device="cpu").pipeline.built_encoder().encoder
            yield row | {"kernels": gpu.kernels(encoder, gpu.batch_of(9, 18, 50), others[-1])}

    monkeypatch.setattr(gpu, "compare", on_cpu)
    gpu.main(tmp_path / "results", device="cuda", shapes="tiny", seconds=0.0, tokens=18)
    found = json.loads((tmp_path / "results" / "gpu.json").read_text())
    (row,) = found["rows"]
    assert found["card"] == "A card"
    assert all(row[name] > 0 for name in ("tokens ready", "fastce", "sentence-transformers"))
    norm = row["kernels"]["add_norm_forward_kernel"]
    assert norm["launches"] == 4
    assert norm["share of GB/s"] == pytest.approx(norm["GB/s"] / 4.0)
    assert row["kernels"]["gemm"] == {"us": 5.0}
    assert (tmp_path / "results" / "gpu.png").stat().st_size > 1000
    assert "A card: 2 TFLOP/s in fp16, 4 GB/s" in capsys.readouterr().out
