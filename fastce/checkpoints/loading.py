"""Finds a model on disk or on the Hub, loads it and checks what was loaded."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch

from fastce.checkpoints.checkpoint import Checkpoint
from fastce.checkpoints.metadata import Metadata, read_metadata
from fastce.checkpoints.network import FAMILIES
from fastce.checkpoints.reading import is_finite, read_network
from fastce.checkpoints.source import Source
from fastce.spec import Precision

logger = logging.getLogger(__name__)

DEFAULT_ORGANIZATION = "cross-encoder"
"""Where a bare name that is no model of the Hub's own is looked for, as in sentence-transformers."""

PRECISION_OF_DTYPE: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


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
    from transformers import AutoTokenizer

    config, source = load_config(source, config_kwargs)
    metadata = read_metadata(source, config)
    reject_other_architectures(source, config, metadata)
    if num_labels is None and not is_classifier(config):
        num_labels = 1
    if num_labels is not None:
        config.num_labels = num_labels
    tokenizer = AutoTokenizer.from_pretrained(source.name, **{**source.options, **processor_kwargs})
    if not model_kwargs.get("weights_only", True):
        raise ValueError("model_kwargs: weights_only=False would run code from a pickle; fastce never does")
    is_plain = model_kwargs.keys() <= {"dtype", "torch_dtype"}  # other options are the module's to obey
    return Checkpoint(
        config,
        tokenizer,
        metadata,
        read=partial(read_network, source, config) if is_plain else lambda: None,
        load=partial(load_module, source, config, model_kwargs),
    )


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
            config = AutoConfig.from_pretrained(candidate, **{**source.options, **config_kwargs})
        except OSError as error:
            if isinstance(error.__context__, JSONDecodeError):
                raise ValueError(f"{candidate}: config.json is not valid JSON ({error.__context__})") from error
            failure = error
        else:
            return config, Source(candidate, source.options)
    raise FileNotFoundError(
        f"{source.name}: no directory here, and no model of that name on the Hub or in its local cache ({failure})"
    ) from failure


def is_classifier(config: Any) -> bool:
    """Whether the saved module has a sequence-classification head."""
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def reject_other_architectures(source: Source, config: Any, metadata: Metadata) -> None:
    """Refuses models that would load, but with a fresh head in place of the one they were trained with."""
    architectures = config.architectures or [""]
    if architectures[0].endswith("ForCausalLM"):
        raise ValueError(
            f"{source.name}: {architectures[0]} scores pairs through its language-model head, which fastce does not "
            "run; a conversion to ...ForSequenceClassification loads"
        )
    if metadata.is_modular_cross_encoder:
        raise ValueError(
            f"{source.name}: this cross-encoder is a chain of sentence-transformers modules, which fastce does not run"
        )


def load_module(source: Source, config: Any, model_kwargs: Mapping[str, Any]) -> Any:
    """Loads the module in float32, from safetensors where there are any, and checks that every weight arrived."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    options = {**source.options, **model_kwargs, "dtype": torch.float32}
    options.pop("torch_dtype", None)
    # Wrong shapes are reported below, with everything else that does not fit.
    shapes_may_differ = options.pop("ignore_mismatched_sizes", False)
    try:
        module, report = AutoModelForSequenceClassification.from_pretrained(
            source.name, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except SafetensorError as error:
        raise ValueError(f"{source.name}: model.safetensors is corrupt or truncated ({error})") from error
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{source.name}: pytorch_model.bin is broken or holds more than weights ({error})") from error
    except OSError as error:
        raise FileNotFoundError(str(error)) from error
    check_weights_fit(source.name, config.model_type, report, shapes_may_differ)
    check_finite(source.name, module)
    return module.eval()


def check_weights_fit(name: str, model_type: str, report: Mapping[str, Any], shapes_may_differ: bool) -> None:
    """Raises ValueError with every weight that a checkpoint lacks, has in excess or has in another shape.

    A head may be missing (transformers has made a fresh one and said so); weights of other tasks' heads may be left.
    """
    found: dict[str, list[str]] = {}
    family = FAMILIES.get(model_type)
    if family is not None:  # of other families nobody knows which weights may be missing
        found["missing"] = sorted(key for key in report["missing_keys"] if not key.startswith(family.fresh))
        found["unused"] = sorted(key for key in report["unexpected_keys"] if not key.startswith(family.unused))
    if not shapes_may_differ:
        found["wrong shape"] = [
            f"{key} is {list(stored)}, not {list(expected)}"
            for key, stored, expected in sorted(report["mismatched_keys"])
        ]
    faults = [f"{what}: {'; '.join(keys)}" for what, keys in found.items() if keys]
    if faults:
        raise ValueError(f"{name}: the weights do not fit the config. " + ". ".join(faults))


def check_finite(name: str, module: torch.nn.Module) -> None:
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
    name = str(dtype).removeprefix("torch.")
    if name not in PRECISION_OF_DTYPE:
        raise ValueError(f"model_kwargs: dtype {dtype!r} is not one of {', '.join(PRECISION_OF_DTYPE)}")
    return PRECISION_OF_DTYPE[name]
