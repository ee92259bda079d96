"""A sentence-transformers CrossEncoder that is in memory, as a checkpoint: its modules stay its own."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules import module as everywhere

from fastce.checkpoints.chain import WEIGHT_NAMES, Chain, chain_of
from fastce.checkpoints.checkpoint import Checkpoint
from fastce.checkpoints.loading import trailing_id
from fastce.checkpoints.logit_score import TASK as TEXT_GENERATION
from fastce.checkpoints.metadata import Metadata
from fastce.checkpoints.untouched import HOOKS, is_hook_of_users

PACKAGE = "sentence_transformers."
CLASSIFICATION = "sequence-classification"

WAY = ("_inference", "preprocess", "tokenize", "forward", "__call__")
"""Methods on the way from pairs to scores, of models, their modules and tokenizers: whoever has others means it."""

PUT_IN = "_inference"
"""The one of them that an accelerated model has from fastce."""


def check_modules(model: Any) -> None:
    """Checks that nothing computes but the code of sentence-transformers and transformers, without hooks.

    Parts of the Hugging Face module are watched by its checkpoint.

    Args:
        model: A CrossEncoder.

    Raises:
        ValueError: Something else does; the message says what.
    """
    children = list(model.named_children())
    if not children or kind_of(children[0][1]) != "Transformer":
        raise ValueError("its first module is no Transformer")
    named = [("the model", model), *((f"its module {name}", module) for name, module in children)]
    for name, module in named:
        if module is not model and not type(module).__module__.startswith(PACKAGE):
            raise ValueError(f"{name} is a {kind_of(module)}, which is none of sentence-transformers' own")
        check_own(name, module, PACKAGE)
        if any(is_hook_of_users(hook) for kind in HOOKS for hook in vars(module)[kind].values()):
            raise ValueError(f"{name} has a hook")
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        raise ValueError("all modules have a hook")
    check_own("its Hugging Face module", model[0].model, "transformers.")
    check_own("its tokenizer", model.tokenizer, "transformers.")


def check_own(name: str, thing: Any, package: str) -> None:
    """Raises ValueError where a method on the way is not the package's own (or PyTorch's), in the object or its class.

    Args:
        name: What to call the object.
        thing: The object.
        package: Prefix of its modules.
    """
    for method in WAY:
        function = getattr(type(thing), method, None)
        is_theirs = function is None or str(function.__module__).startswith((package, "torch."))
        if not is_theirs or (method in vars(thing) and method != PUT_IN):
            raise ValueError(f"{name} has a {method} of its own")


def chain_in(model: Any) -> Chain | None:
    """Describes what is behind a model's Hugging Face module; None where that is a sequence classifier itself.

    Raises:
        ValueError: The modules do something that fastce has no words for.
    """
    transformer, *others = model.children()
    config = transformer.get_config_dict()
    task = config["transformer_task"]
    if transformer.backend != "torch":
        raise ValueError(f"its backend is {transformer.backend!r}")
    if set(transformer.modality_config) - {"text", "message"}:
        raise ValueError(f"it takes {', '.join(map(str, transformer.modality_config))}")
    if "message" in transformer.modality_config and task != TEXT_GENERATION:
        raise ValueError("it reads messages of a chat template")
    for name in ("do_lower_case", "processing_kwargs"):
        if getattr(transformer, name):
            raise ValueError(f"its {name} is {getattr(transformer, name)!r}")
    tokenizer = transformer.tokenizer
    if "attention_mask" not in tokenizer.model_input_names:
        raise ValueError("its tokenizer gives no attention_mask, so that padding is attended to")
    if task != TEXT_GENERATION and tokenizer.padding_side != "right":
        raise ValueError(f"its tokenizer pads on the {tokenizer.padding_side}, which moves positions")
    if task == CLASSIFICATION and not others:
        return None
    modules = [
        {"path": f"{number}_{kind_of(module)}" if number else "", "type": f"{PACKAGE}{kind_of(module)}"}
        for number, module in enumerate([transformer, *others])
    ]
    configs = {entry["path"]: module.get_config_dict() for entry, module in zip(modules[1:], others, strict=True)}
    for module in others:
        activation = getattr(module, "activation_function", None)
        if activation is not None and repr(activation) != repr(type(activation)()):
            raise ValueError(f"an activation function of its own, {activation!r}")
    chain = chain_of("its modules", modules, config, configs.__getitem__)
    name = others[-1].module_output_name if task != TEXT_GENERATION else "scores"
    if name != "scores":
        raise ValueError(f"its last module gives {name!r}, not 'scores'")
    return chain


def own_parts(model: Any, chain: Chain | None) -> list[torch.nn.Module]:
    """The Hugging Face module, and for each step of a chain that has weights the part that holds them."""
    parts = [model[0].model]
    if chain is not None:
        for step, module in zip(chain.head.steps, list(model.children())[2:], strict=False):
            parts += [getattr(module, WEIGHT_NAMES[type(step)])] if type(step) in WEIGHT_NAMES else []
    return parts


def checkpoint_over(model: Any, chain: Chain | None, parts: list[torch.nn.Module]) -> Checkpoint:
    """The model as a checkpoint, whose parameters are the model's own.

    Args:
        model: A CrossEncoder of sentence-transformers.
        chain: What `chain_in` says of it.
        parts: Its `own_parts`.
    """
    module, *weights = parts
    if chain is not None:
        with torch.device("meta"):
            made = chain.around(module)
        for number, step in enumerate(chain.head.steps[: len(made.chain)]):
            if type(step) in WEIGHT_NAMES:
                made.chain[number] = weights.pop(0)
        module = made.eval()
    checkpoint = Checkpoint(
        module.config,
        model.tokenizer,
        Metadata(),
        read=never,
        load=never,
        has_head=lambda: True,
        load_tokenizer=never,
        message_format=None if chain is None else chain.message_format,
        trailing_id=trailing_id if chain is None else None,
    )
    checkpoint.module = module
    return checkpoint


def never() -> Any:
    """In place of reading what is in memory."""
    raise AssertionError("the model is in memory")


def kind_of(module: Any) -> str:
    """Name of a module's class."""
    return type(module).__name__
