"""Engines take only what they know; whatever is put in, over or around it, the module itself runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, PAIRS, transformers_logits
from tolerance import LOGITS
from torch import nn
from transformers import BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertPooler

from fastce import CrossEncoder, InputExample, available_backends

Tiny = Callable[..., str]


def logits(model: CrossEncoder) -> torch.Tensor:
    found: torch.Tensor = model.predict(PAIRS[:40], activation_fn=nn.Identity(), convert_to_tensor=True)
    return found


def expected(model: CrossEncoder) -> torch.Tensor:
    return transformers_logits(model.model, model.tokenizer, PAIRS[:40], model.max_length)[:, 0]


class OwnPooler(BertPooler):
    """The same weights under the same names."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.dense(hidden_states[:, 0]).relu()
        return pooled


class OwnModel(BertForSequenceClassification):
    def forward(self, *args: Any, **options: Any) -> Any:
        output = super().forward(*args, **options)
        output.logits = output.logits * 2
        return output


def put_in_pooler(module: Any) -> None:
    pooler = OwnPooler(module.config)
    pooler.load_state_dict(module.bert.pooler.state_dict())
    module.bert.pooler = pooler.eval()


def replace_forward(module: Any) -> None:
    forward = module.bert.encoder.forward
    module.bert.encoder.forward = lambda hidden, *args, **options: forward(hidden * 0.5, *args, **options)


def halve(_: Any, inputs: Any, output: Any) -> Any:
    return output * 0.5


TOUCHES: dict[str, Callable[[Any], Any]] = {
    "hook": lambda module: module.classifier.register_forward_hook(halve),
    "hook on a layer": lambda module: module.bert.encoder.layer[1].output.dense.register_forward_hook(halve),
    "pre-hook": lambda module: module.bert.pooler.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 0.5,)),
    "forward": replace_forward,
    "part of another class": put_in_pooler,
    "activation": lambda module: setattr(module.bert.pooler, "activation", nn.ReLU()),
    "epsilon": lambda module: setattr(module.bert.embeddings.LayerNorm, "eps", 0.5),
    "part around a part": lambda module: setattr(module, "dropout", nn.Softsign()),
    "class": lambda module: setattr(module, "__class__", OwnModel),
    "parametrization": lambda module: nn.utils.parametrize.register_parametrization(
        module.classifier, "weight", nn.Tanh()
    ),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_what_is_done_to_a_module_is_computed(tiny: Tiny, name: str) -> None:
    model = CrossEncoder(tiny("bert"))
    assert model.model is not None
    before = logits(model)
    assert model.pipeline.built_encoder().backend == "cpp"
    handle = TOUCHES[name](model.model)
    assert (expected(model) - before).abs().max() > 100 * LOGITS, "a touch that changes nothing tests nothing"
    assert (logits(model) - expected(model)).abs().max() <= LOGITS
    backends = available_backends(model)
    assert not backends["cpp"]
    assert not backends["reference"]
    assert backends["transformers"]
    assert model.pipeline.built_encoder(training=True).backend == "transformers"
    if hasattr(handle, "remove"):
        handle.remove()
        assert torch.equal(logits(model), before)
        assert model.pipeline.built_encoder().backend == "cpp"


@pytest.mark.parametrize("name", ["hook on a layer", "activation"])
def test_what_is_done_to_a_module_with_an_adapter_is_computed(tiny: Tiny, name: str) -> None:
    peft = pytest.importorskip("peft")
    model = CrossEncoder(tiny("bert"))
    model.add_adapter(peft.LoraConfig(r=3, target_modules=["dense"], init_lora_weights=False))
    before = logits(model)
    assert model.pipeline.built_encoder().backend == "cpp"
    base = model.model.get_base_model()
    if name == "activation":
        base.bert.pooler.activation = nn.ReLU()
    else:
        base.bert.encoder.layer[1].output.dense.register_forward_hook(halve)
    assert (expected(model) - before).abs().max() > 100 * LOGITS
    assert (logits(model) - expected(model)).abs().max() <= LOGITS
    assert model.pipeline.built_encoder(training=True).backend == "transformers"


@pytest.mark.parametrize("family", CONFIGS)
def test_an_untouched_module_runs_on_the_engine(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family))
    model.model.train()
    if model.model.supports_gradient_checkpointing:
        model.model.gradient_checkpointing_enable()
    model.model.enable_input_require_grads()  # a hook of transformers itself
    assert available_backends(model)["cpp"]
    assert model.pipeline.built_encoder(training=True).backend == "cpp"


MEAN_POOLING = """
import torch
from transformers import BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

class MeanBert(BertForSequenceClassification):
    def forward(self, input_ids, attention_mask=None, token_type_ids=None, **options):
        hidden = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        return SequenceClassifierOutput(logits=self.classifier((hidden * mask).sum(1) / mask.sum(1)))
"""


def test_the_code_of_a_folder_decides_where_it_is_trusted(tiny: Tiny, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    (directory / "mean.py").write_text(MEAN_POOLING)
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "mean.MeanBert"}
    (directory / "config.json").write_text(json.dumps(config))
    own = CrossEncoder(directory)
    assert torch.equal(logits(own), logits(CrossEncoder(tiny("bert"))))
    assert own.pipeline.built_encoder().backend == "cpp"
    trusted = CrossEncoder(directory, trust_remote_code=True)
    assert (logits(trusted) - expected(trusted)).abs().max() <= LOGITS
    assert (logits(trusted) - logits(own)).abs().max() > 100 * LOGITS
    assert "MeanBert is not transformers' class for 'bert'" in available_backends(trusted)["cpp"].reasons[0]
    seen: list[torch.Tensor] = []

    def loss(found: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(found.detach())
        return found.mean()

    batch = [InputExample(texts=list(pair), label=0.5) for pair in PAIRS[:40]]
    trusted.model.config.hidden_dropout_prob = 0.0
    for part in trusted.model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    before = expected(trusted)
    trusted.fit([batch], loss_fct=loss, optimizer_params={"lr": 1e-3}, warmup_steps=0, show_progress_bar=False)
    assert (seen[0] - before).abs().max() <= LOGITS
    assert (expected(trusted) - before).abs().max() > 100 * LOGITS


DATA_CHANGES: dict[str, Callable[[nn.Parameter], Any]] = {
    "scaled": lambda parameter: parameter.data.mul_(1.1),
    "averaged": lambda parameter: parameter.data.lerp_(torch.zeros_like(parameter), 0.1),
    "disturbed": lambda parameter: parameter.data.add_(0.05 * parameter.data.sign()),
    "copied into": lambda parameter: parameter.data.copy_(parameter.data * 0.9),
    "replaced": lambda parameter: setattr(parameter, "data", parameter.data * 0.9),
    "through NumPy": lambda parameter: parameter.detach().numpy().__imul__(1.1),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", DATA_CHANGES)
def test_scores_are_those_of_the_weights_as_they_are(tiny: Tiny, name: str, backend: str) -> None:
    model = CrossEncoder(tiny("bert"), backend=backend)
    assert model.model is not None
    before = logits(model)
    stored = [parameter.detach().clone() for parameter in model.model.parameters()]
    for part in (model.model, model.model.classifier, model.model.bert.encoder.layer[1].output):
        for parameter in part.parameters():
            DATA_CHANGES[name](parameter)
        assert (logits(model) - before).abs().max() > 10 * LOGITS
        assert (logits(model) - expected(model)).abs().max() <= LOGITS
        for parameter, value in zip(model.model.parameters(), stored, strict=True):
            parameter.data.copy_(value)
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize("is_made", [False, True])
def test_a_config_that_changes_counts(tiny: Tiny, is_made: bool) -> None:
    """ModernBERT's module reads its pooling from the config whenever it runs."""
    model = CrossEncoder(tiny("modernbert"))
    assert not is_made or model.model is not None
    before = logits(model)
    model.config.classifier_pooling = "mean"
    after = logits(model)
    assert model.backend == "cpp"
    assert (after - before).abs().max() > 100 * LOGITS
    assert (after - expected(model)).abs().max() <= LOGITS
