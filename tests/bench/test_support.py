"""The README's table of models is what the backends say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastce.bench.support import ROWS, lines
from fastce.checkpoints.network import FAMILIES

README = Path(__file__).parents[2] / "README.md"


def test_the_table_in_the_readme_is_current() -> None:
    pytest.importorskip("fastce._core", reason="the C++ module was not built")
    assert "\n".join(lines()) in README.read_text(encoding="utf-8"), "python -m fastce.bench.support prints it"


def test_every_family_is_in_the_table() -> None:
    assert {row.model_type for row in ROWS} == set(FAMILIES)
