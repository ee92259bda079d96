"""Load for a server, by Locust: each client sends its next request when it has the answer to the one before.

    BODIES=bodies.jsonl OUT=found.json locust -f server_load.py --headless --users 8 --run-time 15s --host URL/rerank

With RATE, clients together send that many requests a second, whether answers come or not. Writes each request's start
and end in seconds of the system's clock, its status code (0 without an answer), the reasons why there was none, and the
CPU seconds of this process.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task

BODIES = [json.loads(line) for line in Path(os.environ["BODIES"]).read_text(encoding="utf-8").splitlines()]
RATE = float(os.environ.get("RATE", "0"))
USERS = int(os.environ.get("USERS", "1"))

found: list[tuple[float, float, int]] = []
errors: set[str] = set()


class Client(FastHttpUser):
    """Sends the requests of the file, one after the other."""

    network_timeout = connection_timeout = 600.0
    if RATE:
        wait_time = constant_throughput(RATE / USERS)

    @task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        """One request."""
        start = time.time()
        answer = self.client.post("", json=BODIES[len(found) % len(BODIES)])
        found.append((start, time.time(), answer.status_code))
        if answer.status_code == 0:
            errors.add(repr(answer.error))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write(**_: Any) -> None:
    """Writes what was found."""
    times = os.times()
    Path(os.environ["OUT"]).write_text(
        json.dumps({"requests": found, "errors": sorted(errors), "cpu_seconds": times.user + times.system})
    )
