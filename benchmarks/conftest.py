"""What all benchmarks share."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastce._core", reason="the C++ module was not built")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints what benchmarks noted beside their times."""
    session = getattr(config, "_benchmarksession", None)
    for benchmark in session.benchmarks if session is not None else ():
        notes = ", ".join(f"{name} {value}" for name, value in benchmark.extra_info.items())
        terminalreporter.write_line(f"{benchmark.name}: {notes}")
