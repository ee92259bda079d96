"""fastce: a fast engine for cross-encoders, a drop-in for the CrossEncoder of sentence-transformers.

Importing this package is cheap: torch and the rest are imported when a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastce.installation import installed_instead

__path__ = installed_instead(__path__)

from fastce.version import __version__

if TYPE_CHECKING:
    from fastce.backends.base import available_backends
    from fastce.corpus.rerank import rerank_run
    from fastce.corpus.score import score_corpus
    from fastce.cross_encoder import CrossEncoder
    from fastce.integrations.sentence_transformers import accelerate, decelerate, patch_sentence_transformers
    from fastce.options import ModelOptions
    from fastce.threads import set_num_threads
    from fastce.training.input_example import InputExample

__all__ = [
    "CrossEncoder",
    "InputExample",
    "ModelOptions",
    "__version__",
    "accelerate",
    "available_backends",
    "decelerate",
    "patch_sentence_transformers",
    "rerank_run",
    "score_corpus",
    "set_num_threads",
]

_HOMES = {
    "CrossEncoder": "fastce.cross_encoder",
    "ModelOptions": "fastce.options",
    "InputExample": "fastce.training.input_example",
    "accelerate": "fastce.integrations.sentence_transformers",
    "decelerate": "fastce.integrations.sentence_transformers",
    "patch_sentence_transformers": "fastce.integrations.sentence_transformers",
    "available_backends": "fastce.backends.base",
    "rerank_run": "fastce.corpus.rerank",
    "score_corpus": "fastce.corpus.score",
    "set_num_threads": "fastce.threads",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastce' has no attribute {name!r}")
    import_module("fastce.progress")  # before transformers, whose import of tqdm would warn in notebooks
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
