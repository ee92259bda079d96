"""Memory that stays where it is, however many calls and models there were."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastce._core", reason="the C++ module was not built")

Tiny = Callable[..., str]

CALLS = """
import random, sys
sys.path[:0] = sys.argv[1:2]
from test_memory import resident
from tiny_models import SENTENCES
from fastce import CrossEncoder
model = CrossEncoder(sys.argv[2], backend="cpp")
chooser = random.Random(0)
def calls(number):
    for count in range(number):
        first, second = (" ".join(chooser.choices(SENTENCES, k=chooser.randint(0, 4))) + str(count) for _ in range(2))
        model.predict([(first, second)] * chooser.choice((1, 2, 30)) + [(second, first + str(chooser.random()))])
calls(300)
for number in map(int, sys.argv[3:]):
    calls(number)
    print(resident())
"""
MODELS = """
import sys
sys.path[:0] = sys.argv[1:2]
from test_memory import resident
from tiny_models import PAIRS
from fastce import CrossEncoder
for count in range(int(sys.argv[3]) + 10):
    CrossEncoder(sys.argv[2], backend="cpp", precision=("fp32", "int8", "bf16")[count % 3]).predict(PAIRS[:8])
    if count == 9:
        print(resident())
print(resident())
"""
WIDE = {"hidden_size": 240, "num_attention_heads": 4, "intermediate_size": 2000}
"""Layers of 5 MB: a model that is not let go is seen."""


def resident() -> float:
    """This process's memory in MB, without what it only keeps for reuse."""
    import ctypes

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(code: str, *arguments: object) -> list[float]:
    """What a program prints of its memory."""
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(here).parent), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", code, here, *map(str, arguments)]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=900)
    return [float(line) for line in result.stdout.split()]


@pytest.mark.parametrize("numbers", [(200, 800), pytest.param((2000, 18000), marks=pytest.mark.stress)])
def test_memory_after_few_and_after_many_calls(tiny: Tiny, numbers: tuple[int, int]) -> None:
    few, many = memory(CALLS, tiny("bert"), *numbers)
    assert many <= 1.05 * few


@pytest.mark.parametrize("number", [10, pytest.param(50, marks=pytest.mark.stress)])
def test_memory_after_many_models(tiny: Tiny, number: int) -> None:
    few, many = memory(MODELS, tiny("bert", **WIDE), number)
    assert many <= 1.05 * few
