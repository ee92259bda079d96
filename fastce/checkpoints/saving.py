"""Writes a model so that transformers, sentence-transformers and fastce read it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastce.checkpoints.adapters import merged_module
from fastce.checkpoints.chain import TRANSFORMER_FILE, write_json
from fastce.checkpoints.metadata import Metadata, write_metadata
from fastce.model_card import MARK

CARD_FILE = "README.md"

READ_BY_OTHERS = (
    # adapters: transformers adds them to whatever lies beside them
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    # weights: whole, sharded, of other formats
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
    "onnx/model*.onnx",
    "openvino/openvino_model*",
    # tokenizers: transformers takes the first of these that it finds
    "tokenizer.json",
    "tokenizer.model",
    "tiktoken.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "source.spm",
    "target.spm",
    "spm.model",
    "spiece.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "processor_config.json",
    "preprocessor_config.json",
    # sentence-transformers: chains of modules and what they say of lengths and case
    "modules.json",
    "sentence_*_config.json",
)
"""Files that say what a folder's model is. Those that a save has not written are of another model, and go."""


def save_checkpoint(
    directory: str | Path, module: Any, tokenizer: Any, metadata: Metadata, card: str | None = None
) -> None:
    """Writes config, safetensors, tokenizer and metadata.

    Everything is written beside the target first and then moved, file by file: an interrupted save leaves the model
    that was there before.

    Args:
        directory: Where to; made if missing. Of what is in it, files of another model go (`READ_BY_OTHERS`), with which
            the folder would not mean this one; everything else stays.
        module: The sequence-classification module; adapters are merged.
        tokenizer: Its tokenizer.
        metadata: What sentence-transformers stores beside a model.
        card: Text of the model card, `README.md`; where somebody else has written one, that stays.

    Raises:
        OSError: The directory can't be written.
        ValueError: The module has adapters that can't be merged.
    """
    module = merged_module(module)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=target) as name:
        temporary = Path(name)
        module.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_max_length(temporary, tokenizer)
        write_metadata(temporary, metadata)
        if card is not None and may_write_card(target):
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        files = sorted(file.relative_to(temporary) for file in temporary.rglob("*") if file.is_file())
        for file in files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / file, target / file)
    others = {file for pattern in READ_BY_OTHERS for file in target.glob(pattern)} - {target / file for file in files}
    for file in others:
        file.unlink()


def may_write_card(folder: Path) -> bool:
    """Whether a folder has no model card yet, or one of fastce's."""
    file = folder / CARD_FILE
    return not file.exists() or MARK in file.read_text(encoding="utf-8")


def write_max_length(folder: Path, tokenizer: Any) -> None:
    """Says in the config of a chain's encoder, where that has a word for it, how long a pair may be now."""
    file = folder / TRANSFORMER_FILE
    if file.exists():
        config = json.loads(file.read_text(encoding="utf-8"))
        if config.get("max_seq_length") is not None:
            write_json(file, config | {"max_seq_length": tokenizer.model_max_length})


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
        Address of the commit, or with `create_pr` of the pull request.
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
    return str(commit.pr_url if create_pr else commit)
