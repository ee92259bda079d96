"""Writes a model so that transformers, sentence-transformers and fastce read it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastce.checkpoints.adapters import merged_module
from fastce.checkpoints.metadata import Metadata, write_metadata


def save_checkpoint(directory: str | Path, module: Any, tokenizer: Any, metadata: Metadata) -> None:
    """Writes config, safetensors, tokenizer and metadata.

    Everything is written beside the target first and then moved, file by file: an interrupted save leaves the model
    that was there before.

    Args:
        directory: Where to; made if missing. Other files in it stay.
        module: The sequence-classification module; adapters are merged.
        tokenizer: Its tokenizer.
        metadata: What sentence-transformers stores beside a model.

    Raises:
        OSError: The directory can't be written.
        ValueError: The module has adapters that can't be merged.
    """
    module = merged_module(module)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=target) as temporary:
        module.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_metadata(Path(temporary), metadata)
        for file in sorted(Path(temporary).iterdir()):
            os.replace(file, target / file.name)


def push_checkpoint(
    save: Callable[[Path], None],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str = "Add a cross-encoder",
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads a model to the Hugging Face Hub.

    Args:
        save: Writes the model to a directory.
        repo_id: Name of the repository; made if missing.
        token: Access token; None takes the stored one.
        private: Whether a repository made for this is private; None takes the account's default.
        commit_message: Message of the commit.
        revision: Branch; None takes the main one.
        create_pr: Open a pull request instead of committing.

    Returns:
        Address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repository = api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        save(Path(temporary))
        commit = api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=temporary,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )
    return str(commit)
