"""A cache of the Hugging Face Hub, made of folders: what names a model by its id runs offline, and as it is written."""

from __future__ import annotations

import shutil
from pathlib import Path

REVISION = "0" * 40


def put(cache: Path, repo_id: str, folder: str | Path) -> None:
    """Makes a folder the model of that id.

    Args:
        cache: What `HF_HOME` will be.
        repo_id: The id.
        folder: The model.
    """
    repository = cache / "hub" / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    shutil.copytree(folder, repository / "snapshots" / REVISION)
