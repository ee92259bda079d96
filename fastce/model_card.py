"""The README.md beside a saved model: what it is made of, how it was trained, how to load it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

MARK = "<!-- written by fastce; a README.md without this line is left alone -->"

VERBS = ("set_", "add_", "extract_", "register_")
"""How the methods of sentence-transformers' model cards begin; its Trainer calls them."""

USES = {
    "fastce": """
from fastce import CrossEncoder

model = CrossEncoder("{name}")
scores = model.predict([("How long does bread take?", "Bread takes three hours.")])
""",
    "sentence-transformers": """
from sentence_transformers import CrossEncoder

model = CrossEncoder("{name}")
scores = model.predict([("How long does bread take?", "Bread takes three hours.")])
""",
    "transformers": """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
features = tokenizer("How long does bread take?", "Bread takes three hours.", return_tensors="pt")
with torch.inference_mode():
    logits = model.eval()(**features).logits  # {activation}
""",
}
"""Packages to what loads a model with them."""


@dataclass
class ModelCardData:
    """What a card says besides what can be read from the model.

    Takes what sentence-transformers' Trainer and evaluators tell the cards of its own models as well.

    Attributes:
        language: Code of the language, or several.
        license: Identifier of the licence.
        model_name: The card's title.
        model_id: Where the model is on the Hub.
        base_model: The model that this one was trained from.
        base_model_revision: Its revision.
        tags: Tags on the Hub.
        train_datasets: What it was trained on, as sentence-transformers describes it.
        eval_datasets: The same for evaluation.
        widget: Examples.
        training_logs: What a Trainer logged.
        evaluation_duration: Seconds that a Trainer has evaluated.
        training: What `fit` was asked for, by name.
        metrics: What the latest evaluation gave.
    """

    language: str | list[str] | None = None
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    tags: list[str] = field(default_factory=list)
    train_datasets: list[Any] = field(default_factory=list)
    eval_datasets: list[Any] = field(default_factory=list)
    widget: list[Any] = field(default_factory=list)
    training_logs: list[Any] = field(default_factory=list)
    evaluation_duration: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any) -> ModelCardData:
        """What somebody gave: None, or any object with some of these attributes, such as sentence-transformers' own."""
        known = {name.name: getattr(given, name.name, None) for name in fields(cls)}
        return cls(**{name: value for name, value in known.items() if value})

    def set_evaluation_metrics(self, evaluator: Any, metrics: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Keeps the results of an evaluation."""
        self.metrics = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Adds tags."""
        self.tags += [tag for tag in ([tags] if isinstance(tags, str) else tags) if tag not in self.tags]

    def set_base_model(self, model_id: str, revision: str | None = None) -> None:
        """Says which model this one was trained from."""
        self.base_model, self.base_model_revision = model_id, revision

    def __getattr__(self, name: str) -> Any:
        """The other methods of sentence-transformers' cards, which set an attribute here or do nothing."""
        verb = next((verb for verb in VERBS if name.startswith(verb)), None)
        if verb is None:
            raise AttributeError(f"ModelCardData has no attribute {name!r}")
        known = verb == "set_" and name.removeprefix(verb) in {known.name for known in fields(self)}
        return lambda *values, **_: setattr(self, name.removeprefix(verb), values[0]) if known else None


def model_card(data: ModelCardData, labels: list[str], activation: str, is_plain: bool) -> str:
    """Writes a card.

    Args:
        data: What is known of the model.
        labels: Names of its labels.
        activation: Name of its activation function.
        is_plain: Whether transformers' class for sequence classification loads it.
    """
    import huggingface_hub

    one = len(labels) == 1
    tags = ["cross-encoder", "sentence-transformers", "fastce", *(["reranker"] if one else []), *data.tags]
    head = huggingface_hub.ModelCardData(
        language=data.language,
        license=data.license,
        base_model=data.base_model,
        library_name="sentence-transformers",
        pipeline_tag="text-ranking" if one else "text-classification",
        tags=list(dict.fromkeys(tags)),
    ).to_yaml()
    gives = "a score" if one else f"logits of {len(labels)} labels ({', '.join(labels)})"
    origin = f" It was trained from [{data.base_model}](https://huggingface.co/{data.base_model})." * bool(
        data.base_model
    )
    name = data.model_id or "path/to/this/model"
    uses = [
        f"### With {package}\n\n```python\n{code.format(name=name, activation=applied(activation)).strip()}\n```"
        for package, code in USES.items()
        if is_plain or package != "transformers"
    ]
    parts = [
        f"---\n{head}\n---\n{MARK}",
        f"# {data.model_name or 'A cross-encoder'}",
        f"A cross-encoder: it reads two texts together and gives {gives}.{origin}",
        "## How to use it",
        *uses,
        *section("How it was trained", data.training),
        *section("Evaluation", {metric: f"{value:.4f}" for metric, value in data.metrics.items()}),
    ]
    return "\n\n".join(parts) + "\n"


def applied(activation: str) -> str:
    """What is still to be done to logits."""
    return "these are the scores" if activation == "Identity" else f"scores are torch.nn.{activation}() of these"


def section(title: str, facts: Mapping[str, Any]) -> list[str]:
    """A table of facts under a title; nothing for none."""
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    return ["\n".join([f"## {title}", "", "| | |", "|---|---|", *rows])] if rows else []
