"""Other processes give the same scores, in whatever way they are started, and none is left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from scoring_processes import WAYS

pytest.importorskip("fastce._core", reason="the C++ module was not built")

Tiny = Callable[..., str]
FOLDER = Path(__file__).parent
FORKED = [way for way in WAYS if way.startswith("fork") and way != "forkserver"]
STARTED = ["spawn", "forkserver", "joblib"]
FORKED_SECONDS = 10.0
"""What scoring in processes may take that are there already."""
START_SECONDS = 60.0
"""What importing torch and transformers may take in several processes at once, on a machine that is busy as well."""


def members(session: int) -> list[int]:
    """Processes of a session that are running."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@contextmanager
def session(*command: str | Path, stdout: int | None = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, of which nothing may be left a few seconds after its end."""
    program = subprocess.Popen(command, cwd=FOLDER, stdout=stdout, text=True, start_new_session=True)
    try:
        yield program
        end = time.monotonic() + 5
        while (left := members(program.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        assert left == []
    finally:
        for process in members(program.pid):
            os.kill(process, signal.SIGKILL)
        program.wait()
        if program.stdout is not None:
            program.stdout.close()


def check(model: str, *ways: str, limit: float) -> None:
    """Runs ways to start processes one after the other."""
    with session(sys.executable, "-W", "ignore", "scoring_processes.py", model, *ways) as program:
        printed, _ = program.communicate(timeout=START_SECONDS + limit * len(ways))
        assert program.returncode == 0
    expected, *reports = map(json.loads, printed.splitlines())
    assert [report["way"] for report in reports] == list(ways)
    for report in reports:
        assert report["results"], report["way"]
        assert all(result == expected for result in report["results"]), report["way"]
        assert report["seconds"] < limit, report["way"]


def test_forked_processes(tiny: Tiny) -> None:
    check(tiny("bert"), *FORKED, limit=FORKED_SECONDS)


@pytest.mark.stress
def test_processes_of_datasets(tiny: Tiny) -> None:
    pytest.importorskip("datasets")
    check(tiny("bert"), "datasets", limit=START_SECONDS)


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way == "spawn" else pytest.mark.stress) for way in STARTED]
)
def test_processes_that_start_anew(tiny: Tiny, way: str) -> None:
    if way == "joblib":
        pytest.importorskip("joblib")
    check(tiny("bert"), way, limit=START_SECONDS)


APPLICATION = """
import json, os
from fastce import CrossEncoder
from scoring_processes import PAIRS
model = CrossEncoder({model!r}, backend="cpp", num_threads=4)
expected = model.predict(PAIRS).tolist()
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    same = model.predict(PAIRS).tolist() == expected
    return [json.dumps({{"same": same, "process": os.getpid()}}).encode()]
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def answer(address: Path, timeout: float) -> dict[str, object]:
    connection = UnixConnection(str(address), timeout=timeout)
    connection.request("GET", "/", headers={"Host": "localhost"})
    return dict(json.loads(connection.getresponse().read()))


@pytest.mark.stress
def test_gunicorn_with_a_preloaded_model(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "application.py").write_text(APPLICATION.format(model=tiny("bert")))
    address = tmp_path / "socket"
    options = ["--preload", "--workers", "4", "--bind", f"unix:{address}", "--pythonpath", f"{tmp_path},{FOLDER}"]
    quiet = ["--log-level", "error", "--no-control-socket"]
    with session(sys.executable, "-m", "gunicorn", *options, *quiet, "application") as server:
        end = time.monotonic() + START_SECONDS
        while not address.exists() and time.monotonic() < end:
            assert server.poll() is None
            time.sleep(0.1)
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: answer(address, FORKED_SECONDS), range(40)))
        assert all(found["same"] for found in answers)
        assert len({found["process"] for found in answers}) > 1
        server.send_signal(signal.SIGTERM)
        assert server.wait(START_SECONDS) == 0
