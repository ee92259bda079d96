"""What a server allows: plain data, which worker processes get as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath

from fastce.checks import check_positive


@dataclass(frozen=True)
class Settings:
    """The limits of a server.

    Attributes:
        served_names: What a request's `model` may say besides the model's own name; the first one stands in answers.
        max_batch_tokens: Tokens that are computed together at most; None leaves it to `service.batch_tokens`.
        max_documents: Documents, or pairs, of a request at most.
        max_waiting: Documents of all requests that may be waiting; beyond, requests are refused for the time being.
        max_body_bytes: Bytes of a request's body at most; while tokenised, it takes some 500 bytes a token.
        timeout: Seconds that a request may take, from the end of its headers to its answer.
        api_key: What clients must send as a bearer token, or None.

    Raises:
        ValueError: A limit is none, or no request of `max_documents` could ever wait.
    """

    served_names: tuple[str, ...] = ()
    max_batch_tokens: int | None = None
    max_documents: int = 1000
    max_waiting: int = 2048
    max_body_bytes: int = 2 * 2**20
    timeout: float = 60.0
    api_key: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_documents", "max_waiting", "max_body_bytes"):
            check_positive(getattr(self, name), name)
        if self.max_batch_tokens is not None:
            check_positive(self.max_batch_tokens, "max_batch_tokens")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout: expected seconds above 0, and an end, got {self.timeout}")
        if self.max_waiting < self.max_documents:
            raise ValueError(
                f"max_waiting: a request of {self.max_documents} documents could never be accepted where "
                f"{self.max_waiting} may wait"
            )
        if self.api_key == "":
            raise ValueError("api_key: expected a text, got an empty one, which would let everybody in")


@dataclass(frozen=True)
class ServedNames:
    """What the served model is called.

    Attributes:
        model: The folder or Hub id that it was loaded from.
        others: Further names.
    """

    model: str
    others: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name in answers, which tells nobody where the model's folder is."""
        return next(iter(self.others), PurePath(self.model).name or self.model)

    def __contains__(self, name: object) -> bool:
        return name in {self.model, PurePath(self.model).name, *self.others}
