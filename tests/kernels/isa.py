"""The ISA levels of this machine, as a parameter of tests."""

from __future__ import annotations

import pytest

_core = pytest.importorskip("fastce._core", reason="the C++ module was not built")

LEVELS: list[str] = _core.isa_levels()
every_level = pytest.mark.parametrize("isa", LEVELS)

SIZES = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 48, 60, 64, 67, 96, 100)
"""One, odd, aligned to each vector and panel, and each of those with a tail."""
