"""`fastce serve` as people start it: a process, real sockets, and signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib import error, request

import psutil
import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from servers import QUERY, TEXTS
from tiny_models import SENTENCES

Tiny = Callable[..., str]


class Server:
    """A server process."""

    def __init__(self, model: str, log: Path, *options: str):
        self.log = log
        command = [sys.executable, "-m", "fastce", "serve", "--model", model, "--port", "0", *options]
        with log.open("w") as stream:
            self.process = subprocess.Popen(command, stderr=stream, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        self.port = 0

    def wait_until_warm(self) -> None:
        found = self.awaited(lambda: re.search(r"http://[\d.]+:(\d+)", self.log.read_text()))
        self.port = int(found[1])
        self.awaited(self.is_warm)

    def is_warm(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except error.URLError:  # the port is chosen, but nobody listens yet
            return False

    def awaited(self, condition: Callable[[], Any]) -> Any:
        for _ in range(1200):
            if found := condition():
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def get(self, path: str, body: Any = None) -> tuple[int, str]:
        """Status and body of an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        try:
            with request.urlopen(request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)) as answer:
                return answer.status, answer.read().decode()
        except error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert found is not None
        return float(found[1])

    def stop(self) -> int:
        """The exit status of a server that is told to stop."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return 1024 * int(found[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def started(model: str, *options: str) -> Server:
        servers.append(Server(model, tmp_path / f"server-{len(servers)}.log", *options))
        servers[-1].wait_until_warm()
        return servers[-1]

    yield started
    for server in servers:
        server.process.kill()
        server.process.wait()


def stops_gracefully(server: Server) -> None:
    """What is accepted when the signal comes is answered, and the process ends well."""
    body = {"query": QUERY, "texts": [f"{number} {text * 5}" for number, text in enumerate(SENTENCES * 40)]}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.get, "/rerank", body)
        while server.metric("fastce_waiting") == 0:
            if answer.done():  # sooner than anybody could look
                answer = pool.submit(server.get, "/rerank", body)
        assert server.stop() == 0
        status, text = answer.result()
    assert status == 200
    assert len(json.loads(text)) == len(body["texts"])
    assert "Traceback" not in server.log.read_text()
    assert "leaked" not in server.log.read_text()


def floods(server: Server, seconds: float) -> Counter[int]:
    """The status codes of what many clients get who never pause, some of whom hang up on their request."""
    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds
    body = {"query": QUERY, "texts": SENTENCES * 4}

    def ask() -> None:
        while time.monotonic() < end:
            statuses[server.get("/rerank", body)[0]] += 1

    def hang_up() -> None:
        content = json.dumps(body).encode()
        head = f"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        while time.monotonic() < end:
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head.encode() + b"\r\n\r\n" + content)
            time.sleep(0.01)

    clients = [threading.Thread(target=ask) for _ in range(12)] + [threading.Thread(target=hang_up) for _ in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return statuses


def test_a_flood_is_refused_in_part_and_memory_stays_and_the_end_is_graceful(
    tiny: Tiny, start: Callable[..., Server]
) -> None:
    server = start(tiny("bert"), "--max-waiting", "480", "--max-documents", "480", "--max-batch-tokens", "500")
    floods(server, 0.5)
    before = server.resident_bytes() if sys.platform == "linux" else 0
    statuses = floods(server, 2.0)
    after = server.resident_bytes() if sys.platform == "linux" else 0
    assert set(statuses) <= {200, 429}
    assert statuses[200] > 0
    assert after - before < 16 * 2**20
    assert server.metric("fastce_waiting") == 0
    stops_gracefully(server)


@pytest.mark.stress
def test_workers_share_a_port_and_count_together(tiny: Tiny, start: Callable[..., Server]) -> None:
    server = start(tiny("bert"), "--workers", "2", "--max-waiting", "1000")
    answers = {server.get("/rerank", {"query": QUERY, "texts": TEXTS})[1] for _ in range(20)}
    assert len(answers) == 1
    assert server.metric("fastce_pairs_total") == 20 * len(TEXTS)
    stops_gracefully(server)


@pytest.mark.stress
def test_what_waited_in_a_worker_that_died_waits_no_more(tiny: Tiny, start: Callable[..., Server]) -> None:
    server = start(tiny("bert"), "--workers", "2")
    body = json.dumps({"query": QUERY, "texts": [f"{number} {SENTENCES[0] * 20}" for number in range(1000)]}).encode()
    head = f"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with ExitStack() as connections:
        for _ in range(8):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
        while server.metric("fastce_waiting") == 0:
            pass
        workers = serving(server)
        for worker in workers:
            worker.kill()
        assert psutil.wait_procs(workers, timeout=30)[1] == []
        server.awaited(lambda: server.metric("fastce_waiting") == 0)
    assert len(serving(server)) == 2
    assert server.stop() == 0


@pytest.mark.stress
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_answer_that_nobody_reads_does_not_keep_the_server(
    tiny: Tiny, start: Callable[..., Server], workers: str
) -> None:
    server = start(tiny("bert"), "--timeout", "2", "--max-body-bytes", str(2**25), "--workers", workers)
    documents = [{"text": "short", "unread": "a" * (2**25 - 200)}]  # which comes back
    body = json.dumps({"query": QUERY, "documents": documents}).encode()
    head = f"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert server.stop() == 0


def serving(server: Server) -> list[psutil.Process]:
    """The workers."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.stress
def test_workers_end_when_their_parent_is_killed(
    tiny: Tiny, start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    server = start(tiny("bert"), "--workers", "2")
    workers = psutil.Process(server.process.pid).children(recursive=True)
    assert len(workers) >= 2
    assert not any("OMP_WAIT_POLICY" in worker.environ() for worker in serving(server))
    server.process.kill()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


@pytest.mark.stress
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_is_not_there_ends_the_program(workers: str) -> None:
    command = [
        sys.executable,
        "-m",
        "fastce",
        "serve",
        "--model",
        "/no/such/model",
        "--port",
        "0",
        "--workers",
        workers,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "fastce: /no/such/model: no directory here" in ended.stderr
