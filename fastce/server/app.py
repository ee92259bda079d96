"""The application: a route for each row of the dialects, and what tells about the server.

FastAPI rather than Starlette alone: it makes the OpenAPI description of the very classes that check the requests.
"""

# Annotations of the routes are classes, chosen when the routes are made: no `from __future__ import annotations`.

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fastce.options import ModelOptions
from fastce.scoring import ACTIVATION_FUNCTIONS, scores_from_logits
from fastce.server.cohere import rerank_error
from fastce.server.dialects import DIALECTS, Dialect
from fastce.server.errors import RequestError
from fastce.server.gate import Gate
from fastce.server.messages import Outcome
from fastce.server.metrics import Measured, Metrics
from fastce.server.service import Scored, Service
from fastce.server.settings import ServedNames, Settings
from fastce.version import __version__

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page.html"
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no text that JSON could be."},
    401: {"description": "The key is missing or wrong."},
    404: {"description": "The model is another one."},
    408: {"description": "The request took too long."},
    413: {"description": "The body is too large, or a pair too long that must not be cut."},
    422: {"description": "The request is not valid, or has too many documents."},
    429: {"description": "Too much is waiting; Retry-After says when to come again."},
    500: {"description": "The model failed; the server's log says why."},
}
"""What clients are told, each in the form of its dialect."""

ERRORS = {dialect_path: dialect.error for dialect in DIALECTS for dialect_path in dialect.paths}


def log_failure(error: BaseException | None) -> None:
    """Says why there is no model."""
    logger.error("there is no model: %s", error)


def create_app(
    options: ModelOptions, settings: Settings, failed: Callable[[BaseException | None], object] = log_failure
) -> FastAPI:
    """Makes the application; its model is loaded when it is started, beside the routes that already answer.

    Args:
        options: What the model is loaded with.
        settings: The limits.
        failed: Told why there is no model, where it can't be loaded or run.
    """
    metrics = Metrics()
    service = Service(options, settings, metrics)
    names = ServedNames(options.model_name_or_path, settings.served_names)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(service.run())
        running.add_done_callback(lambda task: task.cancelled() or failed(task.exception()))
        yield
        running.cancel()
        await asyncio.wait({running})
        service.close()

    app = FastAPI(title="fastce", version=__version__, lifespan=lifespan, redoc_url=None)
    for dialect in DIALECTS:
        for path in dialect.paths:
            app.post(
                path,
                summary=dialect.name,
                response_class=JSONResponse,
                responses={200: {"model": dialect.answer}, **REFUSALS},
            )(route(dialect, service, names))
    add_facts(app, service, names)
    paths = frozenset(app.openapi()["paths"])
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_middleware(Gate, settings=settings, refusal=refusal)
    app.add_middleware(Measured, metrics=metrics, paths=paths)
    return app


def route(dialect: Dialect, service: Service, names: ServedNames) -> Callable[..., Any]:
    """What answers requests of a dialect."""
    answers: TypeAdapter[Any] = TypeAdapter(dialect.answer)

    async def answer(body: dialect.request) -> Response:  # type: ignore[name-defined]
        before = perf_counter()
        if body.model and body.model not in names:
            raise RequestError(404, f"model: {body.model!r} is not served here, but {names.shown!r}")
        scored = await service.scored(body.ask(), ranks=dialect.ranks)
        config = service.model.config
        labels = [str(config.id2label[label]) for label in range(config.num_labels)]
        outcome = Outcome(scored.logits, told(scored.logits, body.wants_logits), scored.tokens, names.shown, labels)
        content = answers.dump_json(body.answer(outcome), exclude_none=True)
        return Response(content, media_type="application/json", headers=times(scored, perf_counter() - before))

    return answer


def told(logits: np.ndarray, wants_logits: bool) -> np.ndarray:
    """Logits, or probabilities, which of several labels sum to 1, float32 `[num_pairs, num_labels]`.

    Raises:
        RequestError: One is no finite number, which JSON can't hold.
    """
    kind = "Identity" if wants_logits else "Sigmoid" if logits.shape[1] == 1 else "Softmax"
    with torch.inference_mode():
        scores = scores_from_logits(torch.from_numpy(logits), ACTIVATION_FUNCTIONS[kind](), apply_softmax=False)
    found = scores.numpy().reshape(logits.shape)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise RequestError(500, f"the model's score of pair {bad[0]} is {found[bad[0]].tolist()}, no finite number")
    return found


def times(scored: Scored, total: float) -> dict[str, str]:
    """TEI's headers: what was computed, and the time in whole milliseconds."""
    seconds = {"total": total, **scored.seconds}
    return {
        "x-compute-tokens": str(scored.tokens),
        **{f"x-{stage}-time": str(round(1000 * time)) for stage, time in seconds.items()},
    }


def refusal(path: str, error: HTTPException) -> Response:
    """The answer to a request that is refused, in the words of its dialect."""
    body = ERRORS.get(path, rerank_error)(error.status_code, str(error.detail))
    return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a request that a route refuses."""
    known = invalid(error) if isinstance(error, RequestValidationError) else error
    assert isinstance(known, HTTPException)
    return refusal(request.url.path, known)


def invalid(error: RequestValidationError) -> RequestError:
    """What is wrong with a request, in one line."""
    found = [f"{place(each['loc'])}: {each['msg']}" for each in error.errors()]
    return RequestError(422, "; ".join(found))


def place(parts: tuple[int | str, ...]) -> str:
    """Where in a request something is wrong; pydantic's names of types, which have brackets, tell clients nothing."""
    return ".".join(part for part in map(str, parts[1:]) if "[" not in part) or "the body"


def add_facts(app: FastAPI, service: Service, names: ServedNames) -> None:
    """Adds the routes that tell about the server."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(PAGE.read_bytes(), headers={"Content-Security-Policy": PAGE_POLICY})

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="200 when the model is warm, 503 before")
    async def health() -> Response:
        if not service.ready.is_set():
            raise RequestError(503, "the model is being loaded", {"Retry-After": "1"})
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", summary="Counters for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/info", summary="The model and the limits")
    async def info() -> Response:
        if not service.ready.is_set():
            raise RequestError(503, "the model is being loaded", {"Retry-After": "1"})
        model, settings = service.model, service.settings
        labels = {"id2label": model.config.id2label, "label2id": model.config.label2id}
        return JSONResponse(
            {
                "model_id": names.shown,
                "model_sha": service.options.revision,
                "model_dtype": model.pipeline.precision,
                "model_type": {"reranker" if model.num_labels == 1 else "classifier": labels},
                "backend": model.backend,
                "max_input_length": model.max_length,
                "max_batch_tokens": service.batch_tokens,
                "max_client_batch_size": settings.max_documents,
                "max_waiting_documents": settings.max_waiting,
                "auto_truncate": True,
                "version": __version__,
            }
        )
