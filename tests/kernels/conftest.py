from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def at_level(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the ops of training run at an ISA level."""
    from fastce import _core
    from fastce.backends.cpp import functions

    return lambda isa: monkeypatch.setattr(functions, "kernels", lambda: _core.Training(isa=isa))
