from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import device_of


@pytest.fixture(scope="session", autouse=True)
def compilation(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str] | None]:
    """All kernels on their way through the compiler, beside the tests, which use another processor."""
    if not any(item.path.name == "test_triton_compiled.py" for item in request.session.items):
        yield None
        return
    command = [sys.executable, str(Path(__file__).with_name("compile_kernels.py"))]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch's threads cost the small networks far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def programs_apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter runs the programs of a kernel one after the other, and sees no races.

    So here they run in another order than their own, and what they write is written down: each place once.
    """
    if device_of("triton") != "cpu":
        yield
        return
    from triton.runtime.interpreter import interpreter_builder

    set_dim, set_index, store = (
        getattr(interpreter_builder, name) for name in ("set_grid_dim", "set_grid_idx", "create_masked_store")
    )
    order: dict[tuple[int, ...], tuple[int, ...]] = {}
    written: list[np.ndarray] = []

    def check_last_launch() -> None:
        places = np.concatenate([np.empty(0, dtype=np.uint64), *written])
        written.clear()
        assert len(np.unique(places)) == len(places), "a place in memory was written twice"

    def shuffle(*grid: int) -> None:
        check_last_launch()
        places = [(x, y, z) for x in range(grid[0]) for y in range(grid[1]) for z in range(grid[2])]
        order.clear()
        order.update(zip(places, random.Random(0).sample(places, len(places)), strict=True))
        set_dim(*grid)

    def record(pointers: Any, value: Any, mask: Any, *options: Any) -> Any:
        inside, places = np.broadcast_arrays(mask.data, pointers.data)
        written.append(places[inside])
        return store(pointers, value, mask, *options)

    monkeypatch.setattr(interpreter_builder, "set_grid_dim", shuffle)
    monkeypatch.setattr(interpreter_builder, "set_grid_idx", lambda *index: set_index(*order[index]))
    monkeypatch.setattr(interpreter_builder, "create_masked_store", record)
    yield
    check_last_launch()
