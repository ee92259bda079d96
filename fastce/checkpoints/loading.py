"""Finds a model on disk or on the Hub, loads it and checks what was loaded."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from fastce.checkpoints.chain import Chain, ModuleChain, read_chain
from fastce.checkpoints.checkpoint import Checkpoint
from fastce.checkpoints.logit_score import LanguageModel, fresh_logit_score
from fastce.checkpoints.metadata import read_metadata
from fastce.checkpoints.network import FAMILIES, OLDER_CONFIGS, length_limit
from fastce.checkpoints.reading import (
    changes_weights,
    is_finite,
    read_network,
    read_tensors,
    warn_of_unused,
    weight_names,
)
from fastce.checkpoints.sizes import check_number_of_labels, check_sizes
from fastce.checkpoints.source import Source, errors_of_files, find_file, read_json
from fastce.checkpoints.untouched import own_code
from fastce.checks import check_precision
from fastce.spec import Precision
from fastce.steps import num_labels as labels_of

logger = logging.getLogger(__name__)

HEAD_PREFIXES = ("classifier.", "score.", "classification_head.", "sequence_summary.")
"""What transformers calls the heads of its sequence classifiers."""

DEFAULT_ORGANIZATION = "cross-encoder"
"""Where a bare name that is no model of the Hub's own is looked for, as in sentence-transformers."""

PLAIN_OPTIONS = {"dtype", "torch_dtype"}
"""Those of the module's options that fastce obeys itself; the others are the module's to obey."""


def load_checkpoint(
    source: Source,
    *,
    num_labels: int | None,
    model_kwargs: Mapping[str, Any],
    processor_kwargs: Mapping[str, Any],
    config_kwargs: Mapping[str, Any],
) -> Checkpoint:
    """Loads config, tokenizer and metadata; the weights follow when they are needed.

    Args:
        source: Where from.
        num_labels: Labels of the head; None takes the config's, or 1 for a base model without a head.
        model_kwargs: Further arguments for the module's `from_pretrained`.
        processor_kwargs: Further arguments for the tokenizer's.
        config_kwargs: Further arguments for the config's.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: The files are not a usable cross-encoder; the message says which and why.
    """
    config, source = load_config(source, config_kwargs)
    check_sizes(source, config)
    metadata = read_metadata(source, config)
    tokenizer = load_tokenizer(source, processor_kwargs)
    chain = read_chain(source, metadata.modules) if metadata.modules else None
    if chain is None and is_language_model(config):
        chain = fresh_logit_score(source.name, tokenizer)
    if chain is not None:
        if num_labels not in (None, labels_of(chain.head)):
            raise ValueError(f"num_labels: {num_labels}, but the model's last module has {labels_of(chain.head)}")
        num_labels = labels_of(chain.head)
    if num_labels is None and not is_classifier(source, config):
        num_labels = 1
    if num_labels is not None:
        config.num_labels = num_labels
    check_tokenizer_fits(source.name, tokenizer, config)
    if chain is not None and chain.transformer.get("max_seq_length") is not None:
        tokenizer.model_max_length = chain.transformer["max_seq_length"]
    if not model_kwargs.get("weights_only", True):
        raise ValueError("model_kwargs: weights_only=False would run code from a pickle; fastce never does")
    is_plain = model_kwargs.keys() <= PLAIN_OPTIONS
    return Checkpoint(
        config,
        tokenizer,
        metadata,
        read=partial(read_network, source, config, chain) if is_plain else nothing_read,
        load=partial(load_module, source, config, chain, model_kwargs),
        has_head=partial(has_head, source, config) if chain is None else partial(bool, True),
        load_tokenizer=partial(load_tokenizer, source, processor_kwargs),
        message_format=None if chain is None else chain.message_format,
        trailing_id=trailing_id if chain is None else None,
    )


def trailing_id(config: Any) -> int | None:
    """The token that a sequence-classification class takes for padding at the end of a text, which has no later one."""
    family = FAMILIES.get(config.model_type)
    return config.pad_token_id if family is not None and family.trims_padding else None


def nothing_read() -> None:
    """In place of reading a network; a function with a name, for it is pickled."""


def load_config(source: Source, config_kwargs: Mapping[str, Any]) -> tuple[Any, Source]:
    """Loads the config; a bare name may turn out to be one of the default organization's."""
    from transformers import AutoConfig

    directory = Path(source.name)
    if directory.exists() and not (directory / "config.json").is_file():
        if (directory / "adapter_config.json").is_file():
            raise ValueError(
                f"{source.name}: an adapter of PEFT; load the model that it adapts, then set "
                f"model.model = PeftModel.from_pretrained(model.model, {source.name!r})"
            )
        what = "no config.json in it" if directory.is_dir() else "it is a file, not a directory"
        raise ValueError(f"{source.name}: {what}; expected a model's directory or a Hub id")
    candidates = [source.name]
    if not directory.exists() and "/" not in source.name:
        candidates.append(f"{DEFAULT_ORGANIZATION}/{source.name}")
    for candidate in candidates:
        try:
            check_number_of_labels(Source(candidate, source.options))
            config = older_config(Source(candidate, source.options), config_kwargs)
            config = config or AutoConfig.from_pretrained(candidate, **{**source.options, **config_kwargs})
        except OSError as error:
            if isinstance(error.__context__, JSONDecodeError):
                raise ValueError(f"{candidate}: config.json is not valid JSON ({error.__context__})") from error
            failure = error
        else:
            return config, Source(candidate, source.options)
    raise FileNotFoundError(f"{source.name}: no directory here, and {not_fetched(source, failure)}") from failure


def not_fetched(source: Source, failure: OSError) -> str:
    """Why there is no model of a name in the Hub's cache, and what to do."""
    if not isinstance(failure.__cause__, LocalEntryNotFoundError):
        return f"no model of that name on the Hub or in its local cache ({failure})"
    if source.options.get("local_files_only"):
        reason = "local_files_only keeps off the network; allow it"
    elif constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE keeps off the network; unset it"
    else:
        reason = f"{constants.ENDPOINT} can't be reached; try again"
    elsewhere = f"or fetch it where there is a network (hf download {source.name}) and give its directory"
    return f"not in the Hub's local cache, and {reason}, {elsewhere}"


def older_config(source: Source, config_kwargs: Mapping[str, Any]) -> Any:
    """The config of files whose own code is not trusted, where a class of transformers can do the same; else None."""
    fields = read_json(source, "config.json")
    kind = fields.get("model_type") if isinstance(fields, dict) else None
    if kind not in OLDER_CONFIGS or source.options.get("trust_remote_code"):
        return None
    try:
        return OLDER_CONFIGS[kind]({**fields, **config_kwargs})
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}; trust_remote_code=True runs the model's own code") from error


def is_classifier(source: Source, config: Any) -> bool:
    """Whether the saved module is one for sequence classification: its config says so, or else its weights."""
    if config.architectures:
        return any(name.endswith("ForSequenceClassification") for name in config.architectures)
    return any(name.startswith(HEAD_PREFIXES) for name in weight_names(source))


def has_head(source: Source, config: Any) -> bool:
    """Whether a classification head is stored; where its name may be any, a config is believed that speaks of one."""
    names = weight_names(source)
    is_known = bool(names) and config.model_type in FAMILIES
    return is_classifier(source, config) and (not is_known or any(name.startswith(HEAD_PREFIXES) for name in names))


def is_language_model(config: Any) -> bool:
    """Whether a model's head gives logits of all tokens."""
    return (config.architectures or [""])[0].endswith("ForCausalLM")


def load_tokenizer(source: Source, processor_kwargs: Mapping[str, Any]) -> Any:
    """Loads the tokenizer."""
    from transformers import AutoTokenizer

    with errors_of_files(source.name, "its tokenizer's files"):
        tokenizer = AutoTokenizer.from_pretrained(source.name, **{**source.options, **processor_kwargs})
        tokenizer.model_max_length = length_limit(tokenizer)
        return tokenizer


def check_tokenizer_fits(name: str, tokenizer: Any, config: Any) -> None:
    """Raises ValueError for a tokenizer that can't be the model's; without files, transformers makes an empty one.

    Tokens added beyond the embedding table only warn: it may be about to be resized.
    """
    added = tokenizer.added_tokens_decoder
    # The length of an empty one may count a token twice, and that of a large one takes long to find otherwise.
    known = len(tokenizer) if len(tokenizer) > 2 * len(added) else len(tokenizer.get_vocab())
    if known <= len(added):
        raise ValueError(
            f"{name}: its tokenizer knows {known} tokens, all special, and no word; are the "
            "tokenizer's files missing (tokenizer.json, vocab.txt or the like)?"
        )
    rows = getattr(config, "vocab_size", None)
    if rows is None:  # of models that read characters or bytes
        return
    needed = tokenizer([""], [""])["input_ids"][0]
    for what, highest in (
        ("tokens", tokenizer.vocab_size - 1),
        ("special tokens around a pair", max(needed, default=0)),
    ):
        if highest >= rows:
            raise ValueError(
                f"{name}: its tokenizer has {what} up to id {highest}, but the embedding table {rows} rows; they do "
                "not belong together"
            )
    if max(added, default=0) >= rows:
        logger.warning(
            "%s: its tokenizer has added tokens up to id %d, but the embedding table %d rows; call "
            "model.model.resize_token_embeddings(len(model.tokenizer)) before a text has one of them",
            *(name, max(added), rows),
        )


def load_module(source: Source, config: Any, chain: Chain | None, model_kwargs: Mapping[str, Any]) -> Any:
    """Loads the module in float32, from safetensors where there are any, and checks that every weight arrived.

    Its weights are in memory: transformers would leave them in the file, which may be written to.
    """
    from safetensors import SafetensorError

    options = {**source.options, **model_kwargs, "dtype": torch.float32}
    options.pop("torch_dtype", None)
    # Wrong shapes are reported below, with everything else that does not fit.
    shapes_may_differ = options.pop("ignore_mismatched_sizes", False)
    options["ignore_mismatched_sizes"] = True
    with errors_of_files(source.name):
        try:
            load, is_in_memory = module_loader(source, config, chain, model_kwargs)
            module, report = load(config=config, output_loading_info=True, **options)
        except SafetensorError as error:
            raise ValueError(f"{source.name}: model.safetensors is corrupt or truncated ({error})") from error
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise ValueError(
                f"{source.name}: pytorch_model.bin is broken or holds more than weights ({error})"
            ) from error
        except OSError as error:
            raise FileNotFoundError(str(error)) from error
    if not is_in_memory:
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    check_weights_fit(source.name, module, report, shapes_may_differ)
    check_finite_weights(source.name, module)
    return module.eval()


def module_loader(
    source: Source, config: Any, chain: Chain | None, model_kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], bool]:
    """What to call for the module, and whether the weights that it puts into it are in memory.

    Where a folder is nothing but a class of transformers and one file, the file is read for it, which spares a copy.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

    if chain is not None:
        return partial(chain.load, source), False
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    file = find_file(source, "model.safetensors")
    is_special = changes_weights(source, config)
    if hasattr(kind, "from_pretrained") and file and not is_special and model_kwargs.keys() <= PLAIN_OPTIONS:
        load = partial(kind.from_pretrained, None, state_dict=read_tensors(file))
        return lambda **options: named(source.name, *load(**options)), True
    return partial(AutoModelForSequenceClassification.from_pretrained, source.name), False


def named(name: str, module: Any, report: Any) -> tuple[Any, Any]:
    """A module that was made without its folder, with the folder's name, and the report of what was loaded."""
    module.name_or_path = module.config._name_or_path = name
    return module, report


def check_weights_fit(name: str, module: Any, report: Mapping[str, Any], shapes_may_differ: bool) -> None:
    """Raises ValueError with every weight that a checkpoint lacks or has in another shape; warns of those left over.

    A head may be missing (transformers has made a fresh one and said so); weights of other tasks' heads may be left.
    """
    found: dict[str, list[str]] = {}
    family = FAMILIES.get(module.config.model_type)
    if family is not None and not own_code(module):  # of others nobody knows which weights may be missing
        may_be_missing = family.fresh
        if isinstance(module, ModuleChain):  # a language model's head is its own
            may_be_missing = () if isinstance(module, LanguageModel) else family.unused
        found["missing"] = sorted(key for key in report["missing_keys"] if not key.startswith(may_be_missing))
        warn_of_unused(name, (key for key in report["unexpected_keys"] if not key.startswith(family.unused)))
    if not shapes_may_differ:
        found["wrong shape"] = [
            f"{key} is {list(stored)}, not {list(expected)}"
            for key, stored, expected in sorted(report["mismatched_keys"])
        ]
    faults = [f"{what}: {'; '.join(keys)}" for what, keys in found.items() if keys]
    if faults:
        raise ValueError(f"{name}: the weights do not fit the config. " + ". ".join(faults))


def check_finite_weights(name: str, module: torch.nn.Module) -> None:
    """Raises ValueError with every weight that holds NaN or infinity."""
    broken = [key for key, value in module.named_parameters() if not is_finite(value)]
    if broken:
        raise ValueError(f"{name}: NaN or infinity in {', '.join(broken)}")


def precision_from_dtype(dtype: Any) -> Precision | None:
    """The precision that a dtype in `model_kwargs` asks for; None where it asks for nothing.

    Args:
        dtype: A torch dtype, its name, None, or `"auto"`, which leaves the choice to fastce.

    Raises:
        ValueError: There is no such precision.
    """
    if dtype is None or dtype == "auto":
        return None
    try:
        return check_precision(dtype)
    except ValueError as error:
        raise ValueError(f"model_kwargs: dtype: {error}") from error
