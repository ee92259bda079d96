from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter() -> Iterator[None]:
    """Triton's interpreter patches its language for every call of a function, which takes a third of the time: once.

    Another third is taken by its look for overflows of integers, for which no test here has numbers large enough.
    """
    try:
        from triton.runtime import interpreter
    except ImportError:
        yield
        return
    patch, patched = interpreter._patch_lang, set()

    def patch_once(function: FunctionType) -> Any:
        languages = frozenset(id(value) for value in function.__globals__.values() if isinstance(value, ModuleType))
        if languages not in patched:
            patched.add(languages)
            patch(function)
        return interpreter._LangPatchScope()  # nothing to restore

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(interpreter, "_patch_lang", patch_once)
        builder = interpreter.interpreter_builder
        monkeypatch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))
        yield
