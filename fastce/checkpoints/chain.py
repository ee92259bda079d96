"""Cross-encoders that are chains of sentence-transformers modules: an encoder, a pooling, and dense layers and norms.

What `modules.json` lists is read once for all families: as the head's description, and as a module that transformers'
encoder and the chain are in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fastce.checkpoints.source import Source, find_file, read_json
from fastce.spec import Activation, Dense, Dropout, HeadSpec, HeadStep, LayerNorm, Normalize, Pooling, TokenDifference

if TYPE_CHECKING:
    from fastce.checkpoints.family import Names

TRANSFORMER_FILE = "sentence_bert_config.json"
MODULES_FILE = "modules.json"

POOLINGS: dict[str, Pooling] = {"cls": "first", "mean": "mean", "lasttoken": "last"}
LEGACY_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_tokens": "mean",
}
ACTIVATIONS: dict[str, Activation | None] = {
    "Identity": None,
    "GELU": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "Tanh": "tanh",
}
"""Classes of `torch.nn` that a dense layer may name, and what they compute."""
WEIGHT_NAMES: dict[type, str] = {Dense: "linear", Normalize: "norm"}
"""What the parameters of sentence-transformers' modules are called."""

FUNCTIONS = {"gelu": nn.functional.gelu, "relu": torch.relu, "silu": nn.functional.silu, "tanh": torch.tanh}


@dataclass(frozen=True)
class Chain:
    """What a folder says of its chain.

    Attributes:
        head: The chain as a head.
        modules: The list in `modules.json`.
        folders: The folder of each of the head's steps; the pooling's comes first.
        configs: What is in the `config.json` of each of these.
        transformer: What is in `sentence_bert_config.json`.
    """

    head: HeadSpec
    modules: Sequence[dict[str, Any]]
    folders: Sequence[str]
    configs: Sequence[dict[str, Any]]
    transformer: dict[str, Any]

    @property
    def message_format(self) -> str | None:
        """How texts stand in the messages of a chat template; None: texts stand for themselves."""
        return None

    def names_in_files(self, names: Sequence[Names], config: Any) -> Iterator[Names]:
        """The names that all parts may have in the files.

        Args:
            names: Those of the encoder's parts.
            config: The encoder's Hugging Face config.
        """
        for theirs in names:
            yield ModuleChain.names(theirs, self.head.steps)

    def weights(self, source: Source) -> dict[str, torch.Tensor]:
        """Weights of the modules behind the encoder, by their names in a `ModuleChain`."""
        return chain_weights(source, self)

    def around(self, base: Any) -> ModuleChain:
        """The chain as a module around its encoder, with fresh weights of its own."""
        return ModuleChain(base, self)

    def load(self, source: Source, **options: Any) -> tuple[ModuleChain, Any]:
        """Loads the chain as a module, and what transformers reports of its encoder's weights."""
        return load_chain(source, self, **options)


def read_chain(source: Source, modules: Sequence[dict[str, Any]]) -> Chain:
    """Reads the chain that a folder's `modules.json` lists.

    Raises:
        ValueError: It has a module that no head's description has words for; the message names it.
    """
    transformer = read_json(source, TRANSFORMER_FILE)
    return chain_of(source.name, modules, transformer, lambda folder: read_json(source, f"{folder}/config.json"))


def chain_of(
    name: str,
    modules: Sequence[dict[str, Any]],
    transformer: dict[str, Any],
    config_of: Callable[[str], dict[str, Any]],
) -> Chain:
    """Describes a chain of modules.

    Args:
        name: What to call the model in messages.
        modules: The list in `modules.json`.
        transformer: What `sentence_bert_config.json` says of the first of them.
        config_of: Gives what is in the `config.json` of a folder.

    Raises:
        ValueError: It has a module that no head's description has words for; the message names it.
    """
    from fastce.checkpoints.logit_score import TASK, logit_score_of

    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    task = transformer.get("transformer_task", "feature-extraction")
    if kinds == ["Transformer", "LogitScore"] and task == TASK and not modules[0]["path"]:
        return logit_score_of(name, modules, transformer, config_of)
    if kinds[:2] != ["Transformer", "Pooling"] or modules[0]["path"] or task != "feature-extraction":
        raise ValueError(
            f"{name}: this cross-encoder is a chain of {', '.join(kinds)}; fastce runs a Transformer for "
            "feature-extraction in the folder itself, a Pooling, and Dense, LayerNorm and Dropout, or a Transformer "
            "for text-generation and a LogitScore"
        )
    if transformer.get("do_lower_case", False):
        raise ValueError(f"{name}/{TRANSFORMER_FILE}: do_lower_case=True, which fastce does not run")
    folders = [str(module["path"]) for module in modules[1:]]
    configs = [config_of(folder) for folder in folders]
    places = [f"{name}/{folder}" for folder in folders]
    steps = [head_step(*step) for step in zip(kinds[2:], configs[1:], places[1:], strict=True)]
    if not steps or not isinstance(steps[-1], Dense):
        raise ValueError(f"{name}: the chain's last module is no Dense layer, so it has no logits")
    return Chain(HeadSpec(pooling(configs[0], places[0]), tuple(steps)), modules, folders, configs, transformer)


def pooling(config: dict[str, Any], place: str) -> Pooling:
    """Reads the config of a Pooling module."""
    legacy = [name for name in config if name.startswith("pooling_mode_") and config[name]]
    mode = config.get("pooling_mode", [LEGACY_POOLINGS.get(name, name) for name in legacy] or "mean")
    mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
    if not isinstance(mode, str) or mode not in POOLINGS:
        raise ValueError(f"{place}: pooling mode {mode!r} is not one of {', '.join(POOLINGS)}")
    if not config.get("include_prompt", True):
        raise ValueError(f"{place}: include_prompt=False leaves a prompt's tokens out, which fastce does not")
    return POOLINGS[mode]


def head_step(kind: str, config: dict[str, Any], place: str) -> HeadStep:
    """Reads the config of one further module."""
    if kind == "LayerNorm":
        return Normalize(LayerNorm(nn.LayerNorm(1).eps))
    if kind == "Dropout":
        return Dropout(float(config["dropout"]))
    if kind != "Dense":
        raise ValueError(f"{place}: a {kind} module is none of Dense, LayerNorm, Dropout")
    if config.get("use_residual", False):
        raise ValueError(f"{place}: use_residual=True, which fastce does not run")
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise ValueError(f"{place}: it reads {config['module_input_name']!r}, not 'sentence_embedding'")
    name = str(config.get("activation_function", "torch.nn.Tanh"))
    if not name.startswith("torch.nn.") or name.rpartition(".")[2] not in ACTIVATIONS:
        raise ValueError(f"{place}: activation {name!r} is none of {', '.join(f'torch.nn.{a}' for a in ACTIVATIONS)}")
    return Dense(int(config["out_features"]), ACTIVATIONS[name.rpartition(".")[2]], bool(config.get("bias", True)))


class ModuleChain(nn.Module):
    """An encoder of transformers and the chain behind it, as one module with logits.

    Args:
        base: The encoder.
        chain: What follows it.
    """

    BASE = "base"
    CHAIN = "chain"

    def __init__(self, base: Any, chain: Chain):
        super().__init__()
        self.base = base
        self.layout = chain
        self.config = base.config
        width = base.config.hidden_size
        parts: list[nn.Module] = []
        for step in chain.head.steps:
            if isinstance(step, Dense):
                parts.append(nn.Linear(width, step.size, bias=step.bias))
                width = step.size
            elif not isinstance(step, TokenDifference):
                parts.append(nn.Dropout(step.probability) if isinstance(step, Dropout) else nn.LayerNorm(width))
        self.chain = nn.ModuleList(parts)

    @property
    def head(self) -> HeadSpec:
        """The chain as a head."""
        return self.layout.head

    @staticmethod
    def names(encoder: Names, steps: Sequence[HeadStep]) -> Names:
        """Names of the parts of a chain around an encoder whose parts have these."""
        base = {f"{ModuleChain.BASE}.{theirs}": ours for theirs, ours in encoder.items()}
        numbers = [number for number, step in enumerate(steps) if not isinstance(step, Dropout)]
        return base | {f"{ModuleChain.CHAIN}.{number}": f"head.{number}" for number in numbers}

    def part_names(self, encoder: Names) -> Names:
        """Names of the module's parts, where those of its encoder have these."""
        return self.names(encoder, self.head.steps)

    def pooled(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The rows that the chain reads, `[num_pairs, hidden_size]`, of `[num_pairs, tokens, hidden_size]`."""
        mask = attention_mask.to(hidden.dtype)
        if self.head.pooling == "mean":
            return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        counted = mask.cumsum(1)  # padding may be on either side
        wanted = counted[:, -1:] if self.head.pooling == "last" else torch.ones_like(counted[:, -1:])
        return hidden[torch.arange(len(hidden)), ((counted == wanted) & (mask > 0)).int().argmax(1)]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any) -> Any:
        """Logits of a padded batch, as transformers' classes give them."""
        hidden = self.base(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        x = self.pooled(hidden, attention_mask)
        for step, part in zip(self.head.steps, self.chain, strict=True):
            x = part(x)
            if isinstance(step, Dense) and step.activation is not None:
                x = FUNCTIONS[step.activation](x)
        return SimpleNamespace(logits=x)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the encoder and every module's folder, as sentence-transformers does."""
        from safetensors.torch import save_file

        folder = Path(directory)
        self.base.save_pretrained(folder)
        write_json(folder / MODULES_FILE, self.layout.modules)
        write_json(folder / TRANSFORMER_FILE, self.layout.transformer)
        for name, config in zip(self.layout.folders, self.layout.configs, strict=True):
            (folder / name).mkdir()
            write_json(folder / name / "config.json", config)
        for name, step, part in zip(self.layout.folders[1:], self.head.steps, self.chain, strict=False):
            weights = {f"{WEIGHT_NAMES[type(step)]}.{key}": x for key, x in part.state_dict().items()}
            if weights:
                save_file(weights, folder / name / "model.safetensors")


def chain_weights(source: Source, chain: Chain) -> dict[str, torch.Tensor]:
    """Reads the weights of a chain's own modules, by their names in a `ModuleChain`.

    Raises:
        ValueError: A module's file is missing, broken or not what its config says.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for number, (folder, step) in enumerate(zip(chain.folders[1:], chain.head.steps, strict=True)):
        if type(step) not in WEIGHT_NAMES:
            continue
        path = find_file(source, f"{folder}/model.safetensors")
        if path is None:
            raise ValueError(f"{source.name}/{folder}: no model.safetensors in it")
        try:
            weights = load_file(path, backend="pread")
        except SafetensorError as error:
            raise ValueError(f"{path}: corrupt or truncated ({error})") from error
        prefix = WEIGHT_NAMES[type(step)]
        for key, weight in weights.items():
            found[f"{ModuleChain.CHAIN}.{number}.{key.removeprefix(f'{prefix}.')}"] = weight.float()
    return found


def load_chain(source: Source, chain: Chain, **options: Any) -> tuple[ModuleChain, Any]:
    """Loads a chain as a module, and what transformers reports of its encoder's weights."""
    from transformers import AutoModel

    base, report = AutoModel.from_pretrained(source.name, **options)
    module = chain.around(base)
    own = {f"{ModuleChain.CHAIN}.{name}": tuple(x.shape) for name, x in module.chain.state_dict().items()}
    weights = chain_weights(source, chain)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    if shapes != own:
        differences = sorted(set(shapes.items()) ^ set(own.items()))
        raise ValueError(f"{source.name}: the chain's weights do not fit its configs: {differences}")
    module.load_state_dict(weights, strict=False)
    return module, report


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file as sentence-transformers does."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
