"""Tiny random models of every family, made in code: uneven sizes, weights large enough that faults show."""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    GteConfig,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

SENTENCES = [
    "A man is playing a guitar on the old stage.",
    "The orchestra tunes its strings before the evening concert begins.",
    "Bread needs flour, water, salt and a little patience.",
    "How long does it take to bake bread?",
    "Ships crossed the narrow strait at dawn, one after another!",
    "Where can I learn to play an instrument?",
    "yes",
    "The recipe says: mix everything, then wait (at least 12 hours).",
    "Trains to the coast leave every 30 minutes.",
    "",
    "Is there a train to the sea?",
    "naïve café über straße 東京 😀",
]
PAIRS = [(first, second) for first in SENTENCES for second in SENTENCES if first or second]

VOCABULARY_SIZE = 300
BERT_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 70,
    "max_position_embeddings": 64,
}
ROBERTA_SIZES = BERT_SIZES | {
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
DISTILBERT_SIZES = {
    "vocab_size": VOCABULARY_SIZE,
    "dim": 60,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 70,
    "max_position_embeddings": 64,
}
MODERNBERT_SIZES = BERT_SIZES | {
    "num_hidden_layers": 4,  # global, local, local, global
    "local_attention": 16,
    "pad_token_id": 0,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


QWEN_SIZES = BERT_SIZES | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "pad_token_id": 1,
    "bos_token_id": None,
    "eos_token_id": 2,
}
DECODER_ADAPTED = ("q_proj", "v_proj", "up_proj", "down_proj")
DEBERTA_SIZES = BERT_SIZES | {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 12,  # beyond half of it in logarithmic steps
    "max_relative_positions": 24,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pad_token_id": 0,
}


class TinyFamily(NamedTuple):
    """What tests need to know of a family.

    Attributes:
        config: Class of its configs.
        sizes: Fields of a config.
        make_tokenizer: Makes a tokenizer of its kind.
        no_dropout: Fields that switch all dropout off.
        adapted: Names of linear layers that LoRA can be asked to adapt.
        spread: Standard deviation of a weight, times the root of its inputs.
    """

    config: type
    sizes: dict[str, Any]
    make_tokenizer: Callable[[], PreTrainedTokenizerFast]
    no_dropout: dict[str, float]
    adapted: tuple[str, ...] = ("query", "dense")
    spread: float = 1.5


def make_wordpiece() -> PreTrainedTokenizerFast:
    """Every word of the sentences, and all letters; made without training, which breaks ties by chance."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word for sentence in SENTENCES for word in re.findall(r"\w+|[^\w\s]", sentence.lower()) if word.isascii()}
    letters = string.ascii_lowercase + string.digits
    pieces = [*names, *sorted(words | set(letters)), *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", names.index("[CLS]")), ("[SEP]", names.index("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def make_wordpiece_without_types() -> PreTrainedTokenizerFast:
    """The same for models without token types."""
    tokenizer = make_wordpiece()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def make_mpnet_wordpiece() -> PreTrainedTokenizerFast:
    """The same with MPNet's two separators, and its padding token in second place."""
    tokenizer = make_wordpiece_without_types()
    vocabulary = tokenizer.get_vocab()
    pad, unknown = vocabulary["[PAD]"], vocabulary["[UNK]"]
    vocabulary |= {"[PAD]": unknown, "[UNK]": pad}
    backend = tokenizer.backend_tokenizer
    backend.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    ids = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=ids
    )
    names = {
        name: getattr(tokenizer, name) for name in ("unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **names)


def make_byte_bpe() -> PreTrainedTokenizerFast:
    """All bytes and a few merges."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("i", "n"),
        ("in", "g"),
        ("a", "n"),
        ("Ġ", "a"),
        ("r", "e"),
        ("o", "n"),
    ]
    pieces = [*names, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def make_bare_byte_bpe() -> PreTrainedTokenizerFast:
    """The same without special tokens around texts, as language models have it."""
    tokenizer = make_byte_bpe()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
    )


BERT_DROPOUTS = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTILBERT_DROPOUTS = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}

CONFIGS: dict[str, TinyFamily] = {
    "bert": TinyFamily(BertConfig, BERT_SIZES, make_wordpiece, BERT_DROPOUTS),
    "roberta": TinyFamily(RobertaConfig, ROBERTA_SIZES, make_byte_bpe, BERT_DROPOUTS),
    "xlm-roberta": TinyFamily(XLMRobertaConfig, ROBERTA_SIZES, make_byte_bpe, BERT_DROPOUTS),
    "camembert": TinyFamily(CamembertConfig, ROBERTA_SIZES, make_byte_bpe, BERT_DROPOUTS),
    "distilbert": TinyFamily(
        DistilBertConfig, DISTILBERT_SIZES, make_wordpiece, DISTILBERT_DROPOUTS, ("q_lin", "out_lin", "lin2")
    ),
    "electra": TinyFamily(ElectraConfig, BERT_SIZES | {"embedding_size": 36}, make_wordpiece, BERT_DROPOUTS),
    "modernbert": TinyFamily(
        ModernBertConfig,
        MODERNBERT_SIZES,
        make_wordpiece_without_types,
        {},
        ("Wqkv", "Wi", "Wo"),
        spread=1.0,  # gates multiply: rounding grows with the square
    ),
    "deberta-v2": TinyFamily(
        DebertaV2Config,
        DEBERTA_SIZES,
        make_wordpiece_without_types,
        BERT_DROPOUTS,
        ("query_proj", "value_proj", "dense"),
    ),
    "mpnet": TinyFamily(
        MPNetConfig,
        BERT_SIZES | {"max_position_embeddings": 66},
        make_mpnet_wordpiece,
        BERT_DROPOUTS,
        ("q", "v", "dense"),
    ),
    "albert": TinyFamily(
        AlbertConfig,
        BERT_SIZES | {"embedding_size": 36, "pad_token_id": 0, "num_hidden_layers": 3},
        make_wordpiece,
        BERT_DROPOUTS | {"classifier_dropout_prob": 0.0},
        ("query", "ffn"),
    ),
    "gte": TinyFamily(
        GteConfig,
        BERT_SIZES | {"type_vocab_size": 2, "pad_token_id": 0},
        make_wordpiece,
        BERT_DROPOUTS,
        ("q_proj", "v_proj", "up_proj", "down_proj"),
        spread=1.0,
    ),
    "qwen3": TinyFamily(Qwen3Config, QWEN_SIZES, make_bare_byte_bpe, {}, DECODER_ADAPTED, spread=1.0),
    "qwen2": TinyFamily(
        Qwen2Config,
        QWEN_SIZES | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        make_bare_byte_bpe,
        {},
        DECODER_ADAPTED,
        spread=1.0,
    ),
    "llama": TinyFamily(
        LlamaConfig,
        QWEN_SIZES | {"attention_bias": True, "mlp_bias": True},
        make_bare_byte_bpe,
        {},
        DECODER_ADAPTED,
        spread=1.0,
    ),
}
"""The families that fastce describes."""
UNKNOWN_FAMILY: dict[str, TinyFamily] = {
    "ernie": TinyFamily(ErnieConfig, BERT_SIZES, make_wordpiece, BERT_DROPOUTS, ("query", "dense")),
}


def save_tiny_model(directory: Path, family: str, *, seed: int = 0, **changes: Any) -> str:
    """Writes a model and its tokenizer as transformers does, and returns the directory."""
    make_tiny_model(family, seed=seed, **changes).save_pretrained(directory)
    make_tokenizer(family).save_pretrained(directory)
    return str(directory)


def make_tiny_model(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random sequence-classification module in evaluation mode."""
    tiny = (CONFIGS | UNKNOWN_FAMILY)[family]
    config = tiny.config(**({"num_labels": 1} | tiny.sizes | changes))
    module = AutoModelForSequenceClassification.from_config(config)
    generator = torch.Generator().manual_seed(seed + zlib.crc32(family.encode()))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2:
                parameter.copy_(noise * (tiny.spread / parameter.shape[1] ** 0.5))
            else:
                is_norm_weight = "norm" in name.lower() and name.endswith("weight")
                parameter.copy_(0.2 * noise + float(is_norm_weight))
    return module.eval()


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A tokenizer of the family's kind."""
    return (CONFIGS | UNKNOWN_FAMILY)[family].make_tokenizer()


@torch.inference_mode()
def transformers_logits(module: Any, tokenizer: Any, pairs: list[tuple[str, str]], max_length: int) -> torch.Tensor:
    """What transformers computes, padded, float32 `[num_pairs, num_labels]`."""
    encoded = tokenizer(
        [first for first, _ in pairs],
        [second for _, second in pairs],
        padding=True,
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
    )
    logits: torch.Tensor = module.eval()(**encoded).logits
    return logits
