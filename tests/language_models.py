"""Tiny language models with a real vocabulary and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reference_data import SHARED
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

VOCABULARY = SHARED / "tokenizers" / "qwen3"

TEMPLATE = """\
{%- set found = namespace(task="Find passages that answer the query.") -%}
{%- for message in messages if message.role == "system" -%}{%- set found.task = message.content -%}{%- endfor -%}
<|im_start|>system
Does the Document meet the Query and the Instruct? Answer "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ found.task }}
{% for message in messages if message.role == "query" %}<Query>: {{ message.content }}
{% endfor %}{% for message in messages if message.role == "document" -%}
<Document>: {{ message.content }}{% endfor %}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""


def save_language_model(folder: Path, *, kind: str = "qwen3", template: str | None = TEMPLATE, **changes: Any) -> str:
    """A tiny language model with random weights and the real vocabulary."""
    if not VOCABULARY.exists():
        pytest.skip(f"needs the vocabulary in {VOCABULARY}")
    tokenizer: Any = AutoTokenizer.from_pretrained(VOCABULARY)
    tokenizer.chat_template = template
    sizes = {
        "vocab_size": 151700,
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "max_position_embeddings": 300,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": kind == "qwen3",
    }
    torch.manual_seed(3)
    module: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | changes)))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(float("norm" in name), 0.3 if parameter.ndim == 2 else 0.1)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
