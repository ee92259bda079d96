from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import PAIRS
from torch import nn

from fastce import CrossEncoder, legacy

Tiny = Callable[..., str]


def load(*args: Any, **kwargs: Any) -> tuple[CrossEncoder, list[str]]:
    """The model, and the deprecations on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = CrossEncoder(*args, **kwargs)
    return model, [str(warning.message) for warning in caught if warning.category is DeprecationWarning]


@pytest.mark.parametrize(
    ("older", "current"),
    [
        ({"tokenizer_args": {"model_max_length": 9}}, "processor_kwargs"),
        ({"tokenizer_kwargs": {"model_max_length": 9}}, "processor_kwargs"),
        ({"automodel_args": {"attn_implementation": "eager"}}, "model_kwargs"),
        ({"config_args": {"hidden_dropout_prob": 0.3}}, "config_kwargs"),
        ({"cache_dir": "somewhere"}, "cache_folder"),
        ({"default_activation_function": nn.Tanh()}, "activation_fn"),
    ],
)
def test_older_names(tiny: Tiny, older: dict[str, Any], current: str) -> None:
    (name,) = older
    model, messages = load(tiny("bert"), **older)
    assert messages == [f"CrossEncoder: {name} is now called {current}"]
    if current == "processor_kwargs":
        assert model.max_length == 9
    if current == "config_kwargs":
        assert model.config.hidden_dropout_prob == 0.3
    if current == "activation_fn":
        assert isinstance(model.activation_fn, nn.Tanh)


def test_the_older_name_of_the_model(tiny: Tiny) -> None:
    model, messages = load(model_name=tiny("bert"))
    assert model.num_labels == 1
    assert len(messages) == 1


def test_classifier_dropout(tiny: Tiny) -> None:
    model, messages = load(tiny("bert"), classifier_dropout=0.4)
    assert model.config.classifier_dropout == 0.4
    assert len(messages) == 1
    assert "config_kwargs" in messages[0]


def test_positional_order_of_2_2(tiny: Tiny) -> None:
    model, messages = load(tiny("bert", num_labels=3), 3, 32, "cpu", {"model_max_length": 60}, {}, nn.Tanh())
    assert (model.num_labels, model.max_length, model.device.type) == (3, 32, "cpu")
    assert isinstance(model.activation_fn, nn.Tanh)
    assert len(messages) == 6


def test_positional_order_of_4_0(tiny: Tiny) -> None:
    model, _ = load(tiny("bert"), 1, 32, nn.Identity(), "cpu")
    assert isinstance(model.activation_fn, nn.Identity)
    with pytest.raises(TypeError, match="at most 7 positional arguments, got 8"):
        CrossEncoder(tiny("bert"), 1, 32, "cpu", {}, {}, None, 5)


def test_warnings_point_at_the_caller(tiny: Tiny) -> None:
    with pytest.warns(DeprecationWarning, match="num_labels") as caught:
        model = CrossEncoder(tiny("bert"), 1)
    with pytest.warns(DeprecationWarning, match="sentences") as more:
        model.predict(sentences=PAIRS[:1])
    assert {warning.filename for warning in (*caught, *more)} == {__file__}


def test_an_argument_under_two_names_is_refused(tiny: Tiny) -> None:
    with (
        pytest.warns(DeprecationWarning, match="tokenizer_args"),
        pytest.raises(TypeError, match="got processor_kwargs twice"),
    ):
        CrossEncoder(tiny("bert"), tokenizer_args={}, processor_kwargs={})
    with pytest.warns(DeprecationWarning, match="num_labels"), pytest.raises(TypeError, match="got num_labels twice"):
        CrossEncoder(tiny("bert"), 1, num_labels=1)


def test_older_names_of_predict_and_rank(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    plain = model.predict(PAIRS[:3], activation_fn=nn.Identity())
    with pytest.warns(DeprecationWarning, match="now called|no effect") as caught:
        older = model.predict(sentences=PAIRS[:3], activation_fct=nn.Identity(), num_workers=2)
    assert np.array_equal(plain, older)
    assert len(caught) == 3
    with pytest.warns(DeprecationWarning, match="now called|no effect") as caught:
        ranking = model.rank("a", ["b", "c"], activation_fct=nn.Identity(), num_workers=1, convert_to_tensor=True)
    assert ranking == model.rank("a", ["b", "c"], activation_fn=nn.Identity())
    assert len(caught) == 3


def test_the_second_place_of_predict_was_the_batch_size(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    with pytest.warns(DeprecationWarning, match="pass batch_size by name"):
        assert np.array_equal(model.predict(PAIRS[:5], 2), model.predict(PAIRS[:5], batch_size=2))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("predict", {"batchsize": 3}, "predict: it has no argument 'batchsize'; did you mean batch_size?"),
        ("predict", {"activation": None}, "predict: it has no argument 'activation'; did you mean activation_fn?"),
        ("rank", {"topk": 3}, "rank: it has no argument 'topk'; did you mean top_k?"),
        ("fit", {"epoch": 3}, "fit: it has no argument 'epoch'; did you mean epochs?"),
        ("fit", {"activation_fn": None}, "fit: it has no argument 'activation_fn'; did you mean activation_fct?"),
        ("save", {"safe_serialisation": False}, "did you mean safe_serialization?"),
        ("predict", {"zzzz": 3}, "predict: it has no argument 'zzzz'; it has inputs, prompt_name, prompt, batch_size"),
    ],
)
def test_a_misspelt_argument_suggests_the_right_one(
    tiny: Tiny, method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError) as caught:
        getattr(CrossEncoder(tiny("bert")), method)([], **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ({"max_lenght": 3}, "max_length"),
        ({"num_label": 1}, "num_labels"),
        ({"dtype": "bfloat16"}, "precision"),
        ({"threads": 1}, "num_threads"),
        ({"trust_remotecode": True}, "trust_remote_code"),
    ],
)
def test_a_misspelt_argument_of_the_constructor(tiny: Tiny, arguments: dict[str, Any], meant: str) -> None:
    (name,) = arguments
    with pytest.raises(TypeError, match=rf"CrossEncoder: it has no argument '{name}'; did you mean {meant}\?"):
        CrossEncoder(tiny("bert"), **arguments)


def test_options_of_save(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    with pytest.warns(UserWarning, match="fastce writes safetensors"):
        model.save(tmp_path, safe_serialization=False)
    assert (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "README.md").exists()
    model.save(tmp_path / "bare", create_model_card=False)
    assert not (tmp_path / "bare" / "README.md").exists()


def test_older_names_are_logged_once_as_well(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """Python shows such warnings of a program's own lines only."""
    legacy.log_once.cache_clear()
    model = CrossEncoder(tiny("bert"))
    for _ in range(2):
        with pytest.warns(DeprecationWarning, match="sentences is now called inputs"):
            model.predict(sentences=[("a", "b")])
    messages = [record.getMessage() for record in caplog.records if record.name == "fastce.legacy"]
    assert messages == ["predict: sentences is now called inputs"]
