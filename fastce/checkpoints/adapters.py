"""Adapters that PEFT has put into a module: added, merged into the weights, or taken apart for training."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class LowRankUpdate:
    """What LoRA adds to a matrix: `scaling * up @ down` (https://arxiv.org/abs/2106.09685, equation 3).

    Attributes:
        down: `[rank, in_features]`.
        up: `[out_features, rank]`.
        scaling: A factor.
        dropout: Applied to what the matrix is multiplied with, before `down`; does nothing in evaluation mode.
    """

    down: torch.Tensor
    up: torch.Tensor
    scaling: float
    dropout: Callable[[torch.Tensor], torch.Tensor]


def add_adapter(module: Any, config: Any, name: str, head: list[str]) -> Any:
    """Freezes a module's parameters and adds an adapter that learns in their place.

    Args:
        module: A sequence-classification module, with adapters or without.
        config: A `PeftConfig`, which is left as it is.
        name: What to call the adapter.
        head: Names of the head's parts, which are trained too where the config doesn't say what is.

    Returns:
        The `PeftModel` with the module.

    Raises:
        ImportError: PEFT is not installed.
        TypeError: The config is none of PEFT's.
        ValueError: There is an adapter of that name already, or PEFT can't add this one, or it can't be merged.
    """
    try:
        from peft import PeftConfig, PeftModel, TaskType, get_peft_model
    except ImportError as error:
        raise ImportError("add_adapter needs PEFT: pip install 'fastce[peft]'") from error
    if not isinstance(config, PeftConfig):
        raise TypeError(f"config: expected a PeftConfig such as LoraConfig, got {type(config).__name__}")
    if config.is_prompt_learning:
        raise ValueError(f"config: {type(config).__name__} can't be merged into the weights")
    if name in getattr(module, "peft_config", {}):
        raise ValueError(f"name: there is an adapter {name!r} already")
    config = copy.deepcopy(config)
    config.task_type = config.task_type or TaskType.SEQ_CLS
    if hasattr(config, "modules_to_save"):
        # A part of the head inside another that is saved would be wrapped twice, and neither trained nor loaded.
        wanted = head if config.modules_to_save is None else config.modules_to_save
        whole = {part: next((outer for outer in head if part.startswith(f"{outer}.")), part) for part in wanted}
        config.modules_to_save = sorted(set(whole.values()))
    training = module.training
    try:
        if isinstance(module, PeftModel):
            module.add_adapter(name, config)
            module.set_adapter(name)
        else:
            module = get_peft_model(module, config, adapter_name=name)
    except (AttributeError, TypeError) as error:  # of configs without a kind, of modules that have adapters already
        raise ValueError(f"config: PEFT can't add this adapter: {error}") from error
    return module.train(training)


def base_module(module: Any) -> Any:
    """The Hugging Face module in a `PeftModel`; any other is one itself."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def adapter_state(module: Any) -> tuple[Any, ...]:
    """Changes where adapters are chosen, switched off, scaled or merged, which leaves the parameters as they are."""
    return tuple(
        (
            tuple(part.active_adapters),
            part.disable_adapters,
            tuple(getattr(part, "merged_adapters", ())),
            tuple(getattr(part, "scaling", {}).values()),
        )
        for _, part in adapted_parts(module)
    )


def adapted_parts(module: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a module, with their names, that PEFT has put in the place of others."""
    if sys.modules.get("peft") is None:  # whoever adds an adapter has imported it
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import other

    wrapper = getattr(other, "AuxiliaryTrainingWrapper", other.ModulesToSaveWrapper)  # older versions know one kind
    for name, part in module.named_modules():
        if isinstance(part, (BaseTunerLayer, wrapper)):
            yield name, part


def has_adapters(module: Any) -> bool:
    """Whether PEFT has put anything into a module."""
    return next(adapted_parts(module), None) is not None


def merged_module(module: Any) -> Any:
    """A copy of a module with its active adapters merged into the weights; itself where it has none.

    Raises:
        ValueError: These adapters can't be merged.
    """
    reject_prompts(module)
    if not has_adapters(module):
        return base_module(module)
    merged = copy.deepcopy(base_module(module))
    replaced: list[str] = []
    for name, part in list(adapted_parts(merged)):
        if not any(name.startswith(f"{outer}.") for outer in replaced):  # else it has gone with that
            merged.set_submodule(name, merged_part(name, part))
            replaced.append(name)
    merged._hf_peft_config_loaded = False  # else transformers would save adapters only
    return merged


def merged_part(name: str, part: Any) -> nn.Module:
    """What takes the place of a part with adapters; changes the part."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if isinstance(part, ModulesToSaveWrapper):
        return chosen_copy(part)
    merges = not part.disable_adapters
    try:
        if not isinstance(part, BaseTunerLayer):
            unwrapped: nn.Module = part.unload_and_optionally_merge_module(merges, safe_merge=False, adapter_names=None)
            return unwrapped
        if merges and not part.merged:
            part.merge()
        elif part.merged and not merges:
            part.unmerge()
    except NotImplementedError as error:
        raise ValueError(f"{name}: {type(part).__name__} of PEFT can't be merged into the weights") from error
    base: nn.Module = part.get_base_layer()
    return base


def chosen_copy(part: Any) -> nn.Module:
    """The copy of a module that a wrapper computes with: PEFT keeps one for each adapter, and the original."""
    copies = [] if part.disable_adapters else [key for key in part.active_adapters if key in part.modules_to_save]
    chosen: nn.Module = part.modules_to_save[copies[0]] if copies else part.original_module
    return chosen


def reject_prompts(module: Any) -> None:
    """Raises ValueError for a `PeftModel` whose adapter is no change of the module's weights, such as a prompt."""
    if hasattr(module, "get_base_model") and module.active_peft_config.is_prompt_learning:
        raise ValueError(f"PEFT's {module.active_peft_config.peft_type.value} can't be merged into the weights")


def plain_parts(module: Any) -> tuple[dict[str, nn.Module], dict[str, list[LowRankUpdate]]]:
    """What a module is made of, under the names that its parts had before there were adapters.

    Returns:
        Parts, the copy that is trained where there are several, and the updates of the weights that LoRA adapts.

    Raises:
        ValueError: There are adapters of another kind.
    """
    reject_prompts(module)
    base = base_module(module)
    adapted = dict(adapted_parts(base))
    parts: dict[str, nn.Module] = {}
    updates: dict[str, list[LowRankUpdate]] = {}

    def visit(name: str, part: Any) -> None:
        if name in adapted:
            part, found = unwrapped(name, part)
            if found:
                updates[f"{name}.weight"] = found
        parts[name] = part
        for own, child in part.named_children():
            visit(f"{name}.{own}" if name else own, child)

    visit("", base)
    return parts, updates


def unwrapped(name: str, part: Any) -> tuple[nn.Module, list[LowRankUpdate]]:
    """What a part with adapters was before, or the copy of it that is trained, and the updates of its weight.

    Raises:
        ValueError: It is neither LoRA's nor a copy.
    """
    from peft.tuners.lora import Linear
    from peft.utils import ModulesToSaveWrapper

    if type(part) is ModulesToSaveWrapper:
        return chosen_copy(part), []
    if type(part) is not Linear or part.fan_in_fan_out:
        raise ValueError(f"{name}: {type(part).__name__} of PEFT is no LoRA of a linear layer")
    active = [] if part.disable_adapters or part.merged else [key for key in part.active_adapters if key in part.lora_A]
    updates = []
    for key in active:
        if key in part.lora_variant or part.lora_bias[key]:
            raise ValueError(f"{name}: adapter {key!r} is a variant of LoRA")
        down, up = part.lora_A[key].get_parameter("weight"), part.lora_B[key].get_parameter("weight")
        updates.append(LowRankUpdate(down, up, part.scaling[key], part.lora_dropout[key]))
    return part.get_base_layer(), updates
