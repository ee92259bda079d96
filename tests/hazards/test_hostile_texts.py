"""Texts are texts: nothing that they name is opened, called or connected to, and offline means offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Tiny = Callable[..., str]

TEXTS = [
    "http://127.0.0.1:9/x",
    "https://127.0.0.1:9/x.safetensors",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "/etc/passwd",
    "../../etc/passwd",
    "~/.ssh/id_rsa",
    "|id",
    "$(touch /tmp/owned)",
    "`id`",
    "; id",
    "\\\\127.0.0.1\\share",
    "hf://datasets/x",
    "s3://x/y",
    "__import__('os').system('id')",
    "{0.__class__}",
    "%s%s%n",
    "${jndi:ldap://127.0.0.1:9/x}",
    "-",
    "--help",
    "\0",
    ".",
]
WATCHED = (
    "open",
    "os.",
    "shutil.",
    "socket.",
    "subprocess.",
    "urllib.",
    "http.",
    "exec",
    "compile",
    "import",
    "ctypes.dlopen",
    "pickle.",
)
"""Beginnings of the names of audit events: https://docs.python.org/3/library/audit_events.html."""

CODE = """
import json, sys
model, backend, when, texts, watched = sys.argv[1:4] + [json.loads(text) for text in sys.argv[4:]]
heard, listening = [], when == "always"
def listen(event, arguments):
    if listening and event.startswith(tuple(watched)):
        heard.append([event, repr(arguments)[:200]])
sys.addaudithook(listen)
from fastce import CrossEncoder, InputExample
from torch.utils.data import DataLoader
cross_encoder = CrossEncoder(model, backend=backend)
examples = DataLoader([InputExample(texts=[text, text], label=1.0) for text in texts[:8]], batch_size=4)
def use(texts):
    cross_encoder.predict([(first, second) for first in texts for second in texts])
    for text in texts:
        cross_encoder.rank(text, texts, return_documents=True)
    cross_encoder.fit(examples, warmup_steps=0, show_progress_bar=False)
use(["a", "b"])  # imports what is imported late
listening = True
use(texts)
listening = False
print(json.dumps(heard))
"""


def heard(model: str, backend: str, when: str, folder: Path) -> list[tuple[str, str]]:
    """Audit events of a program that scores, ranks and trains with texts that name things."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    lists = json.dumps(TEXTS), json.dumps(WATCHED)
    command = [sys.executable, "-W", "ignore", "-c", CODE, model, backend, when, *lists]
    result = subprocess.run(
        command, env=environment, cwd=folder, check=True, capture_output=True, text=True, timeout=300
    )
    return [(event, arguments) for event, arguments in json.loads(result.stdout.splitlines()[-1])]


@pytest.mark.parametrize("backend", ["cpp", pytest.param("reference", marks=pytest.mark.stress)])
def test_texts_open_start_and_reach_nothing(tiny: Tiny, tmp_path: Path, backend: str) -> None:
    if backend == "cpp":
        pytest.importorskip("fastce._core", reason="the C++ module was not built")
    events = heard(tiny("bert"), backend, "texts", tmp_path)
    assert [event for event in events if not event[1].startswith("('/proc/stat'")] == []  # the machine's load, in fit
    assert list(tmp_path.iterdir()) == []


def test_offline_makes_no_connection(tiny: Tiny, tmp_path: Path) -> None:
    """From the first import on: no address is looked up, no socket connected."""
    events = heard(tiny("bert"), "auto", "always", tmp_path)
    assert any(event == "open" for event, _ in events)  # the hook hears what happens
    reached = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "urllib.", "http.")
    assert [event for event in events if event[0].startswith(reached)] == []
