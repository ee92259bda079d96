"""The commands of docs/corpora.md, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import FIRST, PAIRS, rows_of, write_pairs
from typer.testing import CliRunner

from fastce.cli import app

Tiny = Callable[..., str]
PAGE = Path(__file__).parents[2] / "docs" / "corpora.md"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_commands_run_as_they_stand(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastce._core", reason="int8 is the C++ engine's")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTCE_CACHE", str(tmp_path / "cache"))
    write_pairs(Path("pairs.jsonl"))
    Path("queries.tsv").write_text("".join(f"q{number}\t{FIRST[number]}\n" for number in range(3)), encoding="utf-8")
    documents = [{"_id": f"d{number}", "title": "About", "text": text} for number, text in enumerate(FIRST)]
    Path("docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    ids = [(f"q{number % 3}", f"d{number % len(FIRST)}") for number in range(40)]
    Path("run.tsv").write_text("".join(f"{query}\t{document}\n" for query, document in dict.fromkeys(ids)))
    Path("qrels.tsv").write_text("q0\td0\t1\nq1\td1\t1\nq2\td2\t1\n")
    assert len(commands()) == 7
    for line in commands():
        words = [tiny("bert") if word == "$MODEL" else word for word in shlex.split(line)]
        result = CliRunner().invoke(app, words[1:])
        assert words[0] == "fastce"
        assert result.exit_code == 0, (line, result.output)
    assert [row["id"] for row in rows_of(Path("scores"))] == list(range(len(PAIRS)))
    assert {row["rank"] for row in rows_of(Path("best"))} == set(range(1, 11))
    assert len(Path("run.trec").read_text().splitlines()) == len(set(ids))
    assert len(rows_of(Path("shared"))) == len(PAIRS)
    assert (Path("shared") / "_SUCCESS").exists()
