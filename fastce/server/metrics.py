"""What the server counts, in Prometheus's format."""

from __future__ import annotations

import os
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastce.server.batching import Part

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = tuple(2**power for power in range(0, 17, 2))

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names a folder in which processes add up what they count; prometheus_client's own."""


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("fastce_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "fastce_request_seconds", "Time to answer.", ["path"], buckets=SECONDS, registry=registry
        )
        self.stages = Histogram(
            "fastce_stage_seconds", "Time of a request in each stage.", ["stage"], buckets=SECONDS, registry=registry
        )
        self.pairs = Counter("fastce_pairs", "Pairs computed.", registry=registry)
        self.tokens = Counter("fastce_tokens", "Tokens computed.", registry=registry)
        self.batch_tokens = Histogram("fastce_batch_tokens", "Tokens of a batch.", buckets=SIZES, registry=registry)
        self.batch_requests = Histogram(
            "fastce_batch_requests", "Requests in a batch.", buckets=SIZES, registry=registry
        )
        self.waiting = Gauge(
            "fastce_waiting", "Documents that are waiting.", registry=registry, multiprocess_mode="livesum"
        )

    def observe_batch(self, parts: list[Part]) -> None:
        """Counts a batch."""
        tokens = sum(part.tokens for part in parts)
        self.pairs.inc(sum(len(part.numbers) for part in parts))
        self.tokens.inc(tokens)
        self.batch_tokens.observe(tokens)
        self.batch_requests.observe(len(parts))

    def text(self) -> bytes:
        """Everything that was counted, by all processes where there are several."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)


class Measured:
    """Counts requests and their time, by path and status code.

    Args:
        app: What answers.
        metrics: Where to count.
        paths: The paths that are told apart.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]):
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, and counts it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        status = "gone"  # the client was, before there was an answer
        before = perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(perf_counter() - before)
