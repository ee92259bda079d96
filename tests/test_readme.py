"""The Python of README.md, as it stands there: block after block in one process, with tiny models under the ids."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from hub import put
from language_models import save_language_model
from tiny_models import PAIRS, make_tiny_model, make_tokenizer

Tiny = Callable[..., str]
README = Path(__file__).parents[1] / "README.md"


def test_its_python_runs_as_written(tiny: Tiny, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    cache, folder = tmp_path / "cache", tmp_path / "work"
    folder.mkdir()
    put(cache, "cross-encoder/ms-marco-MiniLM-L6-v2", tiny("bert"))
    put(cache, "Qwen/Qwen3-Reranker-0.6B", save_language_model(tmp_path / "language"))
    base = tmp_path / "base"
    make_tiny_model("roberta").roberta.save_pretrained(base)
    make_tokenizer("roberta").save_pretrained(base)
    put(cache, "distilroberta-base", base)
    first, second = zip(*PAIRS, strict=True)
    table = pa.table({"id": list(range(len(PAIRS))), "text_a": list(first), "text_b": list(second)})
    pyarrow.parquet.write_table(table, folder / "pairs.parquet")
    script = folder / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    environment = {
        **os.environ,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(README.parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "output" / "model.safetensors").exists()
    assert (folder / "scores" / "_SUCCESS").exists()
