from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"  # ranx would compile for minutes

import pytest
from transformers import PreTrainedModel


@pytest.fixture
def model_name(tiny: Callable[..., str]) -> str:
    """A folder with a small reranker."""
    return tiny("bert")


@pytest.fixture
def forward_passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each pass through a module of transformers; fastce's engine makes none."""
    made: list[str] = []
    call = PreTrainedModel.__call__

    @functools.wraps(call)  # by its name it is PyTorch's: one of somebody's own would be noticed
    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(type(self).__name__)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "__call__", noted)
    return made
