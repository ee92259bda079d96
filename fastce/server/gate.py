"""What stands before every route: the key, the size of the body, the time, and whether the client is still there."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastce.server.errors import RequestError
from fastce.server.settings import Settings

logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/", "/docs", "/health", "/openapi.json"})
"""What needs no key, since it tells and costs nothing."""


class Gate:
    """Lets requests through that have the key and keep to the limits, and ends those whose client has gone.

    Ending one cancels what answers it, and that takes its pairs out of the queue. What goes wrong unexpectedly is
    logged and answered, too.

    Args:
        app: What answers.
        settings: The limits.
        refusal: Makes the answer to a request that is refused.
    """

    def __init__(self, app: ASGIApp, settings: Settings, refusal: Callable[[str, RequestError], Response]):
        self._app = app
        self._settings = settings
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses to."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        try:
            self._check_key(scope)
            body = await self._body(scope, receive, deadline)
        except RequestError as error:
            await self._refusal(scope["path"], error)(scope, receive, send)
            return
        if body is not None:
            await self._answer(scope, body, receive, send, deadline)

    def _check_key(self, scope: Scope) -> None:
        key = self._settings.api_key
        if key is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        given_bytes = given.encode("latin-1")  # as they came
        if scheme.lower() != "bearer" or not hmac.compare_digest(given_bytes, key.encode()):
            raise RequestError(
                401, "expected the header Authorization: Bearer with the server's key", {"WWW-Authenticate": "Bearer"}
            )

    async def _body(self, scope: Scope, receive: Receive, deadline: float) -> bytes | None:
        """The body; None where the client went away before it was whole."""
        most = self._settings.max_body_bytes
        length = Headers(scope=scope).get("content-length", "0")
        announced = int(length) if length.isdecimal() else 0
        parts, size = [], 0
        while max(size, announced) <= most:
            try:
                left = deadline - asyncio.get_running_loop().time()
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                raise self._too_late() from None
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size <= most and not message.get("more_body", False):
                return b"".join(parts)
        raise RequestError(413, f"the body has more than {most} bytes", {"Connection": "close"})

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send, deadline: float) -> None:
        """Has the request answered, unless time is up or the client goes away before."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        ended, is_begun = asyncio.Event(), False

        async def replay() -> Message:
            if messages:
                return messages.pop()
            await ended.wait()
            return {"type": "http.disconnect"}

        async def noting(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        answering = asyncio.ensure_future(self._app(scope, replay, noting))
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait({answering, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            refused: RequestError | None = None
            if answering.done():
                if error := answering.exception():
                    logger.error("%s: a request failed", scope["path"], exc_info=error)
                    refused = RequestError(500, "the server failed, and its log says why")
            elif not gone.done():
                await stopped(answering)
                refused = self._too_late()
            if refused is not None and not is_begun:  # a connection with half an answer is closed
                await self._refusal(scope["path"], refused)(scope, receive, send)
        finally:
            ended.set()
            await stopped(answering)
            await stopped(gone)

    def _too_late(self) -> RequestError:
        return RequestError(408, f"more than {self._settings.timeout:g} s have passed", {"Connection": "close"})


async def until_gone(receive: Receive) -> None:
    """Waits until the client goes away, or has its answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def stopped(task: asyncio.Future[None]) -> None:
    """Cancels a task that is not done, and waits until it is."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
