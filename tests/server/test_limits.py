"""What a server refuses, what it says then, and that a request costs nothing more once nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from prometheus_client.parser import text_string_to_metric_families
from servers import QUERY, TEXTS, served
from starlette.testclient import TestClient
from tiny_models import PAIRS

from fastce import CrossEncoder, ModelOptions
from fastce.pipeline import Pipeline
from fastce.server.app import create_app
from fastce.server.service import TOKENIZER_THREADS
from fastce.server.settings import Settings
from fastce.threads import usable_cpus

Tiny = Callable[..., str]
BODY = {"query": QUERY, "texts": TEXTS}


class Held:
    """An engine that computes when it is let."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.computed: list[int] = []
        self.begun, self._let = threading.Event(), threading.Event()
        compute = Pipeline.compute

        def held(pipeline: Pipeline, tokenized: Any, *arguments: Any) -> Any:
            self.begun.set()
            assert self._let.wait(20)
            self.computed.append(len(tokenized.pairs))
            return compute(pipeline, tokenized, *arguments)

        self._set = lambda: patch.setattr(Pipeline, "compute", held)

    def __enter__(self) -> Held:
        self._set()
        return self

    def __exit__(self, *_: object) -> None:
        self.let()

    def let(self) -> None:
        self._let.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def metric(client: TestClient, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_concurrent_requests_have_the_scores_of_predict(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family), device="cpu")
    requests = [[PAIRS[(17 * number + at) % len(PAIRS)] for at in range(1 + number % 9)] for number in range(24)]
    with served(tiny(family), max_batch_tokens=150) as client, ThreadPoolExecutor(12) as pool:
        answers = pool.map(lambda pairs: client.post("/predict", json={"inputs": pairs}).json(), requests)
        for pairs, answer in zip(requests, answers, strict=True):
            found = np.array([each[0]["score"] for each in answer], dtype=np.float32)
            assert found.tobytes() == model.predict(pairs, activation_fn="sigmoid").tobytes()
        assert metric(client, "fastce_batch_requests_sum") > metric(client, "fastce_batch_requests_count")


def test_a_thousand_documents_are_split(tiny: Tiny) -> None:
    texts = [f"{TEXTS[number % 4]} {number}" for number in range(1000)]
    expected = CrossEncoder(tiny("bert"), device="cpu").predict(
        [(QUERY, text) for text in texts], activation_fn="sigmoid"
    )
    with served(tiny("bert"), max_batch_tokens=2000) as client:
        answer = client.post("/rerank", json={"query": QUERY, "texts": texts}).json()
        assert metric(client, "fastce_batch_tokens_count") >= 10
        refused = client.post("/rerank", json={"query": QUERY, "texts": [*texts, "one more"]})
    assert [each["score"] for each in answer] == sorted(expected.tolist(), reverse=True)
    assert refused.status_code == 422
    assert "1001 documents" in refused.json()["error"]


def test_too_many_waiting_documents_are_refused_for_now(tiny: Tiny, held: Held, threads: ThreadPoolExecutor) -> None:
    with served(tiny("bert"), max_documents=4, max_waiting=10) as client, held:
        accepted = [threads.submit(client.post, "/rerank", json=BODY) for _ in range(2)]
        wait_for(lambda: metric(client, "fastce_waiting") == 8)
        refused = client.post("/rerank", json=BODY)
        held.let()
        assert [request.result().status_code for request in accepted] == [200, 200]
        assert client.post("/rerank", json=BODY).status_code == 200
        assert metric(client, "fastce_waiting") == 0
        assert metric(client, "fastce_requests_total", path="/rerank", status="429") == 1
    assert refused.status_code == 429
    assert refused.json()["error_type"] == "Overloaded"
    assert int(refused.headers["retry-after"]) >= 1


def test_no_more_may_wait_than_can_be_done_in_time(
    tiny: Tiny, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Pipeline.compute

    def slow(pipeline: Pipeline, tokenized: Any, *arguments: Any) -> Any:
        time.sleep(0.08 * len(tokenized.pairs))
        return compute(pipeline, tokenized, *arguments)

    with served(tiny("bert"), timeout=2.0) as client:
        monkeypatch.setattr(Pipeline, "compute", slow)
        assert client.post("/rerank", json={"query": QUERY, "texts": ["a rate of 12 a second"]}).status_code == 200
        small = threads.submit(client.post, "/rerank", json={"query": QUERY, "texts": TEXTS[:2]})
        wait_for(lambda: metric(client, "fastce_waiting") == 2)
        large = threads.submit(client.post, "/rerank", json={"query": QUERY, "texts": [f"{at}" for at in range(13)]})
        wait_for(lambda: metric(client, "fastce_waiting") == 15)
        refused = client.post("/rerank", json=BODY)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert small.result().status_code == 200
        assert large.result().status_code == 200  # what was waiting before it was little
        assert client.post("/rerank", json={"query": QUERY, "texts": TEXTS[:1]}).status_code == 200


def test_a_request_that_takes_too_long_is_ended(tiny: Tiny, held: Held) -> None:
    with served(tiny("bert"), timeout=0.3, max_batch_tokens=40) as client, held:
        late = client.post("/v2/rerank", json={"query": QUERY, "documents": TEXTS})
        held.let()
        assert client.post("/rerank", json={"query": QUERY, "texts": TEXTS[:1]}).status_code == 200
    assert late.status_code == 408
    assert "0.3 s" in late.json()["message"]
    assert sum(held.computed) <= 3  # one batch of the request that is late, and one of the other


def test_a_body_that_is_too_large_is_refused(tiny: Tiny) -> None:
    large = {"query": QUERY, "texts": ["a" * 2000]}
    with served(tiny("bert"), max_body_bytes=1500) as client:
        announced = client.post("/rerank", json=large)
        unannounced = client.post(
            "/rerank", content=iter([b"[" * 1000, b"[" * 1000]), headers={"content-type": "application/json"}
        )
        assert client.post("/rerank", json=BODY).status_code == 200
    for refused in (announced, unannounced):
        assert refused.status_code == 413
        assert "1500 bytes" in refused.json()["error"]


async def answered(
    app: Any,
    incoming: list[dict[str, Any]],
    reads: bool = True,
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),),
) -> list[dict[str, Any]]:
    """What an application sends to a client that sends these messages, and after them none, and reads a body or not."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("nobody should wait so long")

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not reads:
            await asyncio.sleep(60)

    await app(
        {"type": "http", "method": "POST", "path": "/rerank", "headers": list(headers), "query_string": b""},
        receive,
        send,
    )
    return sent


def test_a_body_that_does_not_come_is_not_waited_for(tiny: Tiny) -> None:
    app = create_app(ModelOptions(tiny("bert")), Settings(timeout=0.1))
    part = {"type": "http.request", "body": b'{"query', "more_body": True}
    sent = asyncio.run(answered(app, [part]))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_body_that_is_announced_as_too_large_is_not_read(tiny: Tiny) -> None:
    app = create_app(ModelOptions(tiny("bert")), Settings(max_body_bytes=1500, timeout=1.0))
    sent = asyncio.run(answered(app, [], headers=((b"content-length", b"1501"),)))
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_body_that_becomes_too_large_is_not_read_on(tiny: Tiny) -> None:
    app = create_app(ModelOptions(tiny("bert")), Settings(max_body_bytes=1500, timeout=1.0))
    parts = [{"type": "http.request", "body": b"[" * 600, "more_body": True} for _ in range(4)]
    sent = asyncio.run(answered(app, parts))
    assert sent[0]["status"] == 413
    assert len(parts) == 1


def test_a_client_that_does_not_read_is_left_alone_in_time(tiny: Tiny) -> None:
    content = json.dumps(BODY).encode()
    with served(tiny("bert"), timeout=0.3) as client:
        message = {"type": "http.request", "body": content, "more_body": False}
        assert client.portal is not None
        sent = client.portal.call(answered, client.app, [message], False)
        assert client.post("/rerank", json=BODY).status_code == 200
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("whole", [True, False], ids=["after its request", "within its request"])
def test_a_client_that_has_gone_costs_nothing_more(tiny: Tiny, held: Held, whole: bool) -> None:
    """Of what it asked for, no more is computed than the batch that was being computed when it left."""
    with served(tiny("bert"), max_batch_tokens=60) as client, held:
        waiting = threading.Thread(target=client.post, args=("/rerank",), kwargs={"json": BODY})
        waiting.start()
        assert held.begun.wait(10)
        content = client.build_request("POST", "/", json={"query": QUERY, "texts": TEXTS * 50}).content
        messages = [
            {"type": "http.request", "body": content, "more_body": not whole},
            {"type": "http.disconnect"},
        ]
        assert client.portal is not None
        sent = client.portal.call(answered, client.app, messages)
        held.let()
        waiting.join()
        assert client.post("/rerank", json=BODY).status_code == 200
        assert metric(client, "fastce_waiting") == 0
        assert metric(client, "fastce_requests_total", path="/rerank", status="gone") == 1
    assert sent == []
    assert sum(held.computed) == 2 * len(TEXTS)


def test_what_nobody_waits_for_is_not_tokenised(
    tiny: Tiny, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let, tokenized = [], threading.Event(), Pipeline.tokenized

    def held(pipeline: Pipeline, window: Any, *arguments: Any) -> Any:
        begun.append(window.first[0])
        assert let.wait(20)
        return tokenized(pipeline, window, *arguments)

    with served(tiny("bert")) as client:
        monkeypatch.setattr(Pipeline, "tokenized", held)
        waiting = [threads.submit(client.post, "/rerank", json=BODY) for _ in range(TOKENIZER_THREADS)]
        wait_for(lambda: len(begun) == min(TOKENIZER_THREADS, usable_cpus()))
        content = client.build_request("POST", "/", json={"query": "gone", "texts": TEXTS}).content
        messages = [{"type": "http.request", "body": content, "more_body": False}, {"type": "http.disconnect"}]
        assert client.portal is not None
        assert client.portal.call(answered, client.app, messages) == []
        let.set()
        assert {request.result().status_code for request in waiting} == {200}
    assert begun == [QUERY] * TOKENIZER_THREADS


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/rerank", BODY, {"error": "the server failed, and its log says why", "error_type": "Backend"}),
        (
            "/v2/rerank",
            {"query": QUERY, "documents": TEXTS},
            dict.fromkeys(("message", "detail"), "the server failed, and its log says why"),
        ),
    ],
)
def test_what_goes_wrong_in_the_engine_is_answered_logged_and_counted(
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    told: dict[str, str],
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the engine broke")

    with served(tiny("bert")) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Pipeline, "compute", broken)
            response = client.post(path, json=body)
        assert client.post(path, json=body).status_code == 200
        assert metric(client, "fastce_requests_total", path=path, status="500") == 1
        assert metric(client, "fastce_requests_total", path=path, status="gone") == 0
    assert response.status_code == 500
    assert response.json() == told
    assert "RuntimeError: the engine broke" in caplog.text


def test_a_key_is_asked_for(tiny: Tiny) -> None:
    with served(tiny("bert"), api_key="sésame") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sésame".encode()}):
            for path in ("/rerank", "/v1/rerank", "/score", "/info", "/metrics", "/nothing"):
                refused = client.post(path, json=BODY, headers=headers)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/health", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        key = {"Authorization": "Bearer sésame".encode()}
        for given in (key, {"Authorization": "bearer sésame".encode()}):
            assert client.post("/rerank", json=BODY, headers=given).status_code == 200
        assert client.get("/info", headers=key).status_code == 200


def test_times_are_told(tiny: Tiny, held: Held, threads: ThreadPoolExecutor) -> None:
    with served(tiny("bert")) as client, held:
        request = threads.submit(client.post, "/rerank", json=BODY)
        assert held.begun.wait(10)
        time.sleep(0.1)
        held.let()
        headers = request.result().headers
        stages = [int(headers[f"x-{stage}-time"]) for stage in ("tokenization", "queue", "inference")]
        assert stages[2] >= 100
        assert stages[1] < 100
        assert int(headers["x-total-time"]) >= sum(stages) - 3  # each is rounded
        assert metric(client, "fastce_stage_seconds_sum", stage="inference") >= 0.1


def test_requests_before_the_model_is_warm_wait_for_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    let, load = threading.Event(), ModelOptions.load

    def slow(options: ModelOptions, **others: Any) -> CrossEncoder:
        assert let.wait(20)
        return load(options, **others)

    monkeypatch.setattr(ModelOptions, "load", slow)
    app = create_app(ModelOptions(tiny("bert")), Settings())
    with TestClient(app) as client, ThreadPoolExecutor(1) as pool:
        cold = client.get("/health")
        request = pool.submit(client.post, "/rerank", json=BODY)
        wait_for(lambda: metric(client, "fastce_waiting") == len(TEXTS))
        let.set()
        assert request.result().status_code == 200
        assert client.get("/health").status_code == client.head("/health").status_code == 200
    assert cold.status_code == 503
    assert cold.headers["retry-after"] == "1"


def test_why_there_is_no_model_is_told() -> None:
    failures: list[BaseException | None] = []
    with TestClient(create_app(ModelOptions("/no/such/model"), Settings(), failures.append)) as client:
        wait_for(lambda: bool(failures))
        assert client.get("/health").status_code == 503
    assert isinstance(failures[0], FileNotFoundError)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"max_documents": 50, "max_waiting": 49}, "a request of 50 documents"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_batch_tokens": 0}, "max_batch_tokens"),
        ({"api_key": ""}, "api_key"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Settings(**limits)
