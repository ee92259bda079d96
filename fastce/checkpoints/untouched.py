"""Whether a module is what its config says: the very classes of transformers, nothing put in, over or around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from fastce.checkpoints.chain import ModuleChain
from fastce.checkpoints.logit_score import LanguageModel

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def parts_of(module: Any) -> Iterator[Any]:
    """All modules in a module, itself included; several times faster than torch's own walk, which makes names."""
    waiting = [module]
    while waiting:
        part = waiting.pop()
        yield part
        waiting += [child for child in part._modules.values() if child is not None]


def signature(part: Any) -> tuple[object, ...]:
    """What a part computes with besides its weights, and differs where somebody has changed it."""
    own = part.__dict__
    return type(part), own.get("forward"), own.get("eps"), own.get("p"), *(len(own[name]) for name in HOOKS)


def is_hook_of_users(hook: Any) -> bool:
    """Whether a hook is none of those that transformers sets to find its way, such as for gradient checkpointing."""
    return not str(getattr(hook, "__module__", "")).startswith(("transformers.", "peft."))


def own_code(module: Any) -> str:
    """Says why a module does not run the code of transformers; an empty string where it does."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    known: Any = {ModuleChain: MODEL_MAPPING, LanguageModel: MODEL_FOR_CAUSAL_LM_MAPPING}.get(type(module))
    kind = type(module if known is None else module.base)
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if known is None else known
    if known.get(type(module.config), None) is kind:
        return ""
    return f"{kind.__module__}.{kind.__qualname__} is not transformers' class for {module.config.model_type!r}"


def interference(module: Any) -> str:
    """Says which part of a module has a hook or a forward of somebody's own; an empty string where none has."""
    for name, part in module.named_modules():
        own = part.__dict__
        if "forward" in own:
            return f"{name or 'the module'} has a forward of its own"
        if any(is_hook_of_users(hook) for kind in HOOKS for hook in own[kind].values()):
            return f"{name or 'the module'} has a hook"
    return ""


def replaced_part(module: Any, parts: Mapping[str, Any]) -> str:
    """Says which part of a module is not the one that its class makes; an empty string where all are.

    Args:
        module: The module.
        parts: Its parts under their names, those that adapters wrap in place of the wrappers.
    """
    expected = expected_parts(module)
    for name in sorted(expected.keys() | parts.keys()):
        found = signature(parts[name])[:4] if name in parts else None
        if found != expected.get(name):
            what = f"is not as the config makes it ({parts[name]})" if name in parts else "is missing"
            return f"{name} {what}"
    return ""


def expected_parts(module: Any) -> dict[str, tuple[object, ...]]:
    """Names and signatures of the parts that a module's class makes for its config."""
    kind: Any = type(module)
    config = json.dumps(module.config.to_dict(), sort_keys=True, default=str)
    if kind not in (ModuleChain, LanguageModel):
        return parts_made_by(kind, config)
    base_kind: Any = type(module.base)
    base = parts_made_by(base_kind, config)
    with torch.device("meta"):
        made: ModuleChain = kind(module.base, module.layout)
    own = {name: signature(part)[:4] for name, part in made.named_modules() if not name.startswith(ModuleChain.BASE)}
    return own | {f"{ModuleChain.BASE}.{name}".rstrip("."): found for name, found in base.items()}


@lru_cache(maxsize=8)
def parts_made_by(kind: Callable[..., Any], config: str) -> dict[str, tuple[object, ...]]:
    """Names and signatures of the parts that a class makes for a config."""
    with torch.device("meta"):
        made: nn.Module = kind(kind.config_class(**json.loads(config)))  # type: ignore[attr-defined]
    return {name: signature(part)[:4] for name, part in made.named_modules()}
