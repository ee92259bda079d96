"""Requests that are not answered with scores."""

from __future__ import annotations

from starlette.exceptions import HTTPException


class RequestError(HTTPException):
    """A request that is refused, or can't be answered.

    Args:
        status: The status code.
        message: What is wrong, with the value and its place.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(status, message, headers)
