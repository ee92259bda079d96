"""How a model is loaded, as data."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from tiny_models import PAIRS

from fastce import CrossEncoder, ModelOptions

Tiny = Callable[..., str]


def test_options_load_the_model_that_they_say(tiny: Tiny) -> None:
    options = ModelOptions(tiny("bert"), precision="bf16", max_length=20, num_threads=1, backend="cpp")
    model = options.load(activation_fn=torch.nn.Identity())
    expected = CrossEncoder(
        tiny("bert"), precision="bf16", max_length=20, num_threads=1, activation_fn=torch.nn.Identity()
    )
    assert repr(model) == repr(expected)
    assert np.array_equal(model.predict(PAIRS), expected.predict(PAIRS))


def test_options_are_small_values(tiny: Tiny) -> None:
    options = ModelOptions(tiny("bert"), precision="int8")
    assert len(pickle.dumps(options)) < 500
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(replace(options, max_length=8)) != hash(options)
    with pytest.raises(FrozenInstanceError):
        options.precision = "fp32"  # type: ignore[misc]


def test_every_option_is_an_argument_with_the_same_default() -> None:
    arguments = inspect.signature(CrossEncoder.__init__).parameters
    for field in fields(ModelOptions)[1:]:
        assert arguments[field.name].default == field.default, field.name


def test_options_that_are_none_say_so_when_they_are_used(tiny: Tiny) -> None:
    options = ModelOptions(tiny("bert"), backend="tvm")
    with pytest.raises(ValueError, match="backend: expected 'auto' or one of"):
        options.load()
