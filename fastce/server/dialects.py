"""The languages that clients of rerankers speak: a row a dialect, with its paths, its requests and its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastce.server.cohere import RerankAnswer, RerankV1Request, RerankV2Request, rerank_error
from fastce.server.messages import Request
from fastce.server.tei import TeiPrediction, TeiPredictRequest, TeiRank, TeiRerankRequest, tei_error
from fastce.server.vllm import ScoreAnswer, ScoreRequest, vllm_error


@dataclass(frozen=True)
class Dialect:
    """A language that clients speak.

    Attributes:
        name: Whose it is.
        paths: Where it is spoken.
        request: What is said.
        answer: What is answered, a type.
        error: What is answered instead, given the status code and what is wrong.
        ranks: Whether answers are made of one score a pair, which takes a model with one label.
    """

    name: str
    paths: tuple[str, ...]
    request: type[Request]
    answer: Any
    error: Callable[[int, str], dict[str, Any]]
    ranks: bool = True


DIALECTS = (
    Dialect("Text Embeddings Inference", ("/rerank",), TeiRerankRequest, list[TeiRank], tei_error),
    Dialect(
        "Text Embeddings Inference",
        ("/predict",),
        TeiPredictRequest,
        list[TeiPrediction] | list[list[TeiPrediction]],
        tei_error,
        ranks=False,
    ),
    Dialect("Cohere v1, Jina, vLLM", ("/v1/rerank",), RerankV1Request, RerankAnswer, rerank_error),
    Dialect("Cohere v2", ("/v2/rerank",), RerankV2Request, RerankAnswer, rerank_error),
    Dialect("vLLM", ("/score", "/v1/score"), ScoreRequest, ScoreAnswer, vllm_error),
)
"""All of them."""
