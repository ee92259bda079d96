"""Language models as rerankers: a pair's score is how much more they would answer it with one token than with another.

What sentence-transformers calls a Transformer for text-generation and a LogitScore, or a folder of a language model
alone, which it scores by "yes" and "no".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from fastce.checkpoints.chain import Chain, ModuleChain
from fastce.checkpoints.source import Source
from fastce.spec import HeadSpec, TokenDifference

if TYPE_CHECKING:
    from fastce.checkpoints.family import Names

TASK = "text-generation"
ANSWERS = ("yes", "no")
"""The tokens of a language model whose folder names none."""

MODULES = (
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_LogitScore", "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"),
)
"""Folders and types of the modules of such a reranker."""

FORWARD = {"method": "forward", "method_output_name": "logits"}


class LogitScoreChain(Chain):
    """What a folder says of a language model that is a reranker."""

    @property
    def message_format(self) -> str | None:
        """How texts stand in a message of the chat template, `"flat"` or `"structured"`; None: no template is used."""
        known = self.transformer.get("modality_config", {})
        return known["message"].get("format", "structured") if "message" in known else None

    def names_in_files(self, names: Sequence[Names], config: Any) -> Iterator[Names]:
        """See `Chain`; where the language model's head is the embeddings, there need be no other."""
        for theirs in names:
            with_head = LanguageModel.names_of(theirs)
            yield with_head
            if config.tie_word_embeddings:
                yield {name: ours for name, ours in with_head.items() if ours != "head.0"}

    def weights(self, source: Source) -> dict[str, torch.Tensor]:
        """See `Chain`: there are none beside the model's."""
        return {}

    def around(self, base: Any) -> ModuleChain:
        """See `Chain`."""
        return LanguageModel(base, self)

    def load(self, source: Source, **options: Any) -> tuple[ModuleChain, Any]:
        """See `Chain`."""
        from transformers import AutoModelForCausalLM

        base, report = AutoModelForCausalLM.from_pretrained(source.name, **options)
        return self.around(base), report


class LanguageModel(ModuleChain):
    """A language model with the difference of two tokens' logits in place of all logits."""

    @staticmethod
    def names_of(encoder: Names) -> Names:
        """Names of the parts of a language model around an encoder whose parts have these."""
        base = {f"{ModuleChain.BASE}.model.{theirs}": ours for theirs, ours in encoder.items()}
        return base | {f"{ModuleChain.BASE}.lm_head": "head.0"}

    def part_names(self, encoder: Names) -> Names:
        """See `ModuleChain`."""
        return self.names_of(encoder)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any) -> Any:
        """Logits of a padded batch, `[num_pairs, 1]`, by the model's own code, whatever that does to its logits."""
        width = input_ids.shape[1]
        padding = width - attention_mask.cumsum(1).argmax(1, keepdim=True) - 1  # behind the last token
        places = (torch.arange(width, device=input_ids.device) - padding) % width  # padding to the left
        ids, mask = input_ids.gather(1, places), attention_mask.gather(1, places)
        logits = self.base(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False, **inputs).logits
        difference = self.head.steps[0]
        assert isinstance(difference, TokenDifference)
        last = logits[:, -1]
        return SimpleNamespace(logits=(last[:, difference.positive_id] - last[:, difference.negative_id]).unsqueeze(1))


def logit_score_of(
    name: str,
    modules: Sequence[dict[str, Any]],
    transformer: dict[str, Any],
    config_of: Callable[[str], dict[str, Any]],
) -> LogitScoreChain:
    """Describes the chain of a Transformer for text-generation and a LogitScore; see `chain_of`.

    Raises:
        ValueError: It asks for more than the difference of two tokens.
    """
    for option in ("processing_kwargs", "do_lower_case"):
        if transformer.get(option):
            raise ValueError(f"{name}: {option}={transformer[option]!r}, which fastce does not run")
    folder = str(modules[1]["path"])
    config = config_of(folder)
    tokens: list[Any] = [config.get(key) for key in ("true_token_id", "false_token_id")]
    if not all(isinstance(token, int) for token in tokens):
        raise ValueError(f"{name}/{folder}: tokens {tokens}; fastce scores by the difference of two")
    if config.get("module_input_name", "causal_logits") != "causal_logits":
        raise ValueError(f"{name}/{folder}: it reads {config['module_input_name']!r}, not 'causal_logits'")
    return LogitScoreChain(head_of(*tokens), modules, [folder], [config], transformer)


def fresh_logit_score(name: str, tokenizer: Any) -> LogitScoreChain:
    """The chain of a language model that nobody has said how to score with.

    Raises:
        ValueError: The tokenizer has no token for one of the answers.
    """
    vocabulary = tokenizer.get_vocab()
    if missing := [answer for answer in ANSWERS if answer not in vocabulary]:
        raise ValueError(f"{name}: a language model is scored by its answers, and its tokenizer has no {missing[0]!r}")
    positive, negative = (vocabulary[answer] for answer in ANSWERS)
    modalities: dict[str, Any] = {"text": FORWARD}
    if tokenizer.chat_template:
        modalities["message"] = FORWARD | {"format": message_format(tokenizer.chat_template)}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind} for number, (path, kind) in enumerate(MODULES)
    ]
    config = {"true_token_id": positive, "false_token_id": negative, "module_input_name": "causal_logits"}
    transformer = {"transformer_task": TASK, "modality_config": modalities, "module_output_name": "causal_logits"}
    return LogitScoreChain(head_of(positive, negative), modules, [MODULES[1][0]], [config], transformer)


def head_of(positive: int, negative: int) -> HeadSpec:
    """The last token's difference."""
    return HeadSpec("last", (TokenDifference(positive, negative),))


STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
"""What sentence-transformers looks for in templates whose messages hold lists of parts."""


def message_format(template: Any) -> str:
    """How texts stand in the messages of a chat template."""
    is_structured = not isinstance(template, str) or any(word in template for word in STRUCTURED)
    return "structured" if is_structured else "flat"
