"""`fastce serve` up to where the server starts, and the commands of docs/server.md, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from servers import listening
from typer.testing import CliRunner

from fastce.cli import app
from fastce.server import run

Tiny = Callable[..., str]
PAGE = Path(__file__).parents[2] / "docs" / "server.md"
COMMANDS = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)).splitlines()
CURL = [command for command in COMMANDS if command.startswith("curl")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_route_answers_as_it_stands(tiny: Tiny) -> None:
    assert len(CURL) == 8
    with listening(tiny("bert")) as address:
        while subprocess.run(["curl", "--fail", "--silent", f"{address}/health"], capture_output=True).returncode:
            pass
        answers = {
            command.split('"')[1].removeprefix("$SERVER"): subprocess.run(
                ["bash", "-c", command],
                env={"SERVER": address, "PATH": "/usr/bin:/bin"},
                capture_output=True,
                check=True,
            ).stdout.decode()
            for command in CURL
        }
    assert len(json.loads(answers["/rerank"])) == len(json.loads(answers["/predict"])) == 2
    assert len(json.loads(answers["/v1/rerank"])["results"]) == 1
    assert len(json.loads(answers["/v2/rerank"])["results"]) == 2
    assert len(json.loads(answers["/score"])["data"]) == 2
    assert json.loads(answers["/health"]) == {"status": "ok"}
    assert "fastce_requests_total" in answers["/metrics"]


def test_the_server_starts_as_it_stands(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(run, "serve", lambda *arguments: started.append(arguments) or 0)
    (command,) = [command for command in COMMANDS if command.startswith("fastce")]
    words = [tiny("bert") if word == "$MODEL" else word for word in shlex.split(command)]
    result = CliRunner().invoke(app, words[1:], env={"FASTCE_API_KEY": "secret"})
    assert result.exit_code == 0, result.output
    ((options, settings, host, port, workers),) = started
    assert (options.precision, host, port, workers, settings.api_key) == ("int8", "127.0.0.1", 8080, 1, "secret")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-waiting", "5"], "--max-waiting: a request of 1000 documents"),
        (["--timeout", "0"], "--timeout: expected seconds above 0"),
        (["--timeout", "inf"], "--timeout: expected seconds above 0"),
        (["--device", "abacus"], "--device: 'abacus' is none"),
        (["--api-key", ""], "--api-key: expected a text"),
        (["--precision", "int3"], "--precision: expected one of"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_starts(tiny: Tiny, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--model", tiny("bert"), *options])
    assert result.exit_code == 2
    assert message in result.output


def test_the_extra_is_named_where_it_is_missing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("fastce.server.run")
    monkeypatch.delitem(sys.modules, "fastce.server.run")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["serve", "--model", tiny("bert")])
    assert result.exit_code == 1
    assert "pip install 'fastce[server]'" in result.output
