"""The code of docs/integrations.md, as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastce.cli import app

pytestmark = pytest.mark.integrations
PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
PACKAGES = (
    "beir",
    "haystack",
    "ir_measures",
    "langchain_classic",
    "llama_index",
    "onnxscript",
    "pyterrier",
    "rerankers",
)


def test_the_page_runs_as_it_stands(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastce._core", reason="int8 is the C++ engine's")
    for package in PACKAGES:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 11
    names: dict[str, Any] = {}
    for language, code in blocks:
        if language == "python":
            exec(code, names)
            names["MODEL"] = tiny("bert")
        else:
            words = [tiny("bert") if word == "$MODEL" else word for word in shlex.split(code)]
            assert words[0] == "fastce"
            assert CliRunner().invoke(app, words[1:]).exit_code == 0
    assert [entry.query_id for entry in names["reranked"]] == ["q1", "q1"]
    assert len(names["documents"]) == 3
    assert names["again"].dumps() == names["pipeline"].dumps()
