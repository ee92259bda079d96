"""A server in this process, and what people send to one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from fastce import ModelOptions
from fastce.server.app import create_app
from fastce.server.settings import Settings

QUERY = "How long does it take to bake bread?"
TEXTS = [
    "Bread needs flour, water, salt and a little patience.",
    "Trains to the coast leave every 30 minutes.",
    "The recipe says: mix everything, then wait (at least 12 hours).",
    "yes",
]


@contextmanager
def served(model: str | ModelOptions, **limits: Any) -> Iterator[TestClient]:
    """A client of a server that is warm."""
    options = ModelOptions(model, device="cpu") if isinstance(model, str) else model
    failures: list[BaseException | None] = []
    with TestClient(create_app(options, Settings(**limits), failures.append)) as client:
        while client.get("/health").status_code != 200:
            assert not failures
            time.sleep(0.02)
        yield client


@contextmanager
def listening(model: str, **limits: Any) -> Iterator[str]:
    """The address of a server that listens on a port, in a thread of this process."""
    application = create_app(ModelOptions(model, device="cpu"), Settings(**limits))
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
