"""Bars in notebooks. That a real kernel shows them needs one, which the tests do without."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from fastce import progress


def work(steps: int, seconds: float) -> None:
    with progress.progress_bar(None, total=steps, description="Working", unit="steps") as bar:
        for _ in range(steps):
            time.sleep(seconds)
            bar.update()


@pytest.mark.parametrize(
    ("shell", "is_shown"), [(SimpleNamespace(kernel=1), True), (SimpleNamespace(), False), (None, False)]
)
def test_long_work_shows_a_bar_in_notebooks_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: object, is_shown: bool
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    work(4, 0.05)
    assert ("Working: 100%" in capsys.readouterr().err) is is_shown
    work(4, 0.0)
    assert capsys.readouterr().err == ""


NOTEBOOK = """
import sys
from types import ModuleType, SimpleNamespace
shell = SimpleNamespace(kernel=1)
sys.modules["ipykernel.zmqshell"] = ModuleType("ipykernel.zmqshell")
sys.modules["IPython"] = SimpleNamespace(get_ipython=lambda: shell)
sys.modules["ipywidgets"] = None
import fastce
fastce.ModelOptions
import huggingface_hub.utils.tqdm
from fastce.progress import progress_bar
progress_bar(True, total=1, description="Working", unit="steps").update()
"""


def test_a_notebook_without_widgets_is_no_reason_to_warn() -> None:
    done = subprocess.run([sys.executable, "-W", "always", "-c", NOTEBOOK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Working: 100%" in done.stderr
    assert "TqdmWarning" not in done.stderr
