"""A server in this process, and what people send to one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
