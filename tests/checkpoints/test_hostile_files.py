"""A short form of `make stress`: in a child process, which a fault may kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_spoiled_models_load_or_say_so() -> None:
    program = Path(__file__).with_name("hostile_files.py")
    arguments = [sys.executable, str(program), "--count", "120", "--seed", "1000"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=program.parents[2], timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
