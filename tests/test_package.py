"""What holds for the package as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastce

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_is_cheap_and_leaves_torch_alone() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import fastce; print(time.perf_counter() - start);"
        "print([name for name in ('torch', 'transformers', 'numpy', 'tokenizers') if name in sys.modules])"
    )
    runs = [run(code).split("\n") for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.1
    assert {imported for _, imported, *_ in runs} == {"[]"}


def test_public_names() -> None:
    assert set(fastce.__all__) <= set(dir(fastce))
    for name in fastce.__all__:
        assert getattr(fastce, name) is not None
    with pytest.raises(AttributeError, match="module 'fastce' has no attribute 'Nothing'"):
        _ = fastce.Nothing


def test_the_version_is_stated_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", fastce.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {fastce.__version__}" in changelog


def test_the_cpp_module_says_what_it_is() -> None:
    core = pytest.importorskip("fastce._core", reason="the C++ module was not built")
    assert core.version == fastce.__version__
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    for feature in core.cpu_features():
        assert feature in flags or feature in {"neon", "dotprod"}
    assert ("avx2" in core.cpu_features()) == ("avx2" in flags)


def test_no_file_of_the_package_is_long() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for folder in ("fastce", "csrc", "tests", "benchmarks", "examples")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".cpp", ".h"} and (count := file.read_text(encoding="utf-8").count("\n")) > 430
    }
    assert long == {}
