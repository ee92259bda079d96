"""What the compiler makes of every kernel for GPUs that are not here, against the figures kept and their limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton.language", reason="Triton is not installed")

KEPT: dict[str, Any] = json.loads(Path(__file__).with_name("compiled.json").read_text())
LEVELS = [level for level in KEPT if level.startswith("sm_")]

MOST_SHARED = 82 * 1024
"""Half of what a multiprocessor of compute capability 8.0 shares out: at least two programs run on it."""
MOST_REGISTERS = 65536
"""Registers of a multiprocessor, each of 32 bits: a program's threads take no more."""
LARGEST_MMA = 64
"""Rows of the products of a warp group on Hopper: tiles with fewer multiply a warp at a time."""


@pytest.fixture(scope="module")
def compiled(compilation: Any) -> dict[str, Any]:
    output, errors = compilation.communicate()
    assert compilation.returncode == 0, errors
    return json.loads(output)


@pytest.mark.parametrize("level", LEVELS)
def test_kernels_compile_within_their_limits(compiled: dict[str, Any], level: str) -> None:
    assert len(compiled[level]) >= (40 if level != "sm_89" else 4)
    for name, found in compiled[level].items():
        assert found["spilled bytes"] == 0, name
        assert found["shared bytes"] <= MOST_SHARED, name
        assert found["registers"] * found["warps"] * 32 <= MOST_REGISTERS, name


@pytest.mark.parametrize("level", LEVELS)
def test_products_are_on_tensor_cores(compiled: dict[str, Any], level: str) -> None:
    """But for float32: there TF32 would break the promise of its precision. Of fp8, they multiply e4m3."""
    for name, found in compiled[level].items():
        rows, expected = found["rows of products"], None
        if rows is not None and found["dtype"] != "float32":
            expected = "wgmma" if level == "sm_90" and rows >= LARGEST_MMA else "mma"
        assert found["tensor cores"] == expected, name


@pytest.mark.parametrize("level", LEVELS)
def test_figures_are_as_kept(compiled: dict[str, Any], level: str) -> None:
    if compiled["triton"] != KEPT["triton"]:
        pytest.skip(f"the figures are of Triton {KEPT['triton']}, this is {compiled['triton']}")
    assert compiled[level] == KEPT[level], "make kernel-figures writes them"


def test_other_batches_compile_nothing_anew(compiled: dict[str, Any]) -> None:
    """Their sizes are no constants of kernels, and what they begin with is aligned."""
    first, *others = compiled["in turn"]
    assert first > 3
    assert others == [first] * len(others)
