"""The objects of the ISA levels share nothing that a linker could take from the wrong one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BUILDS = (Path(__file__).parents[2] / "build").rglob("csrc/isa/*.o")
OBJECTS = sorted(file for file in BUILDS if "asan" not in file.parts)


@pytest.mark.skipif(not OBJECTS, reason="the objects of the build are not here")
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.parametrize("file", OBJECTS, ids=lambda file: file.name)
def test_an_object_defines_its_table_of_kernels_alone(file: Path) -> None:
    listing = subprocess.run(
        ["nm", "--demangle", "--defined-only", "--extern-only", file], check=True, capture_output=True, text=True
    ).stdout
    symbols = [line.split(maxsplit=2) for line in listing.splitlines()]
    level = file.name.split(".")[0]
    assert [name for _, kind, name in symbols if kind not in "RD"] == []
    assert [name for _, _, name in symbols] == [f"fastce::kernels_{level}"]
