from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastce.scoring import (
    ACTIVATION_FUNCTIONS,
    activation_from_name,
    activation_name,
    convert,
    scores_from_logits,
)


@pytest.mark.parametrize("name", ACTIVATION_FUNCTIONS)
def test_names_are_read_back(name: str) -> None:
    activation = ACTIVATION_FUNCTIONS[name]()
    path = activation_name(activation)
    assert path is not None
    assert type(activation_from_name(path)) is type(activation)
    assert type(activation_from_name(f"torch.nn.{name}")) is type(activation)


@pytest.mark.parametrize("path", ["os.system", "torch.nn.Linear", "evil.torch.nn.Sigmoid", "Sigmoid", "torch.hub.load"])
def test_nothing_else_is_resolved(path: str) -> None:
    with pytest.raises(ValueError, match=f"activation function '{path}'"):
        activation_from_name(path)


@pytest.mark.parametrize("activation", [torch.sigmoid, lambda logits: logits, nn.Bilinear(1, 1, 1), nn.Hardtanh(-5, 5)])
def test_what_could_not_be_read_back_has_no_name(activation: Any) -> None:
    with pytest.warns(UserWarning, match="is not saved"):
        assert activation_name(activation) is None


def test_one_label_is_squeezed_and_several_are_not() -> None:
    assert scores_from_logits(torch.zeros(3, 1), nn.Sigmoid(), False).tolist() == [0.5, 0.5, 0.5]
    assert scores_from_logits(torch.zeros(3, 2), nn.Sigmoid(), False).shape == (3, 2)


def test_softmax_comes_after_the_activation_and_leaves_one_label_alone() -> None:
    logits = torch.tensor([[1.0, 3.0]])
    assert torch.equal(scores_from_logits(logits, nn.Tanh(), True), logits.tanh().softmax(1))
    assert scores_from_logits(torch.ones(2, 1), nn.Identity(), True).tolist() == [1.0, 1.0]


def test_types() -> None:
    scores = torch.tensor([1.0, 2.0])
    array = convert(scores, convert_to_numpy=True, convert_to_tensor=False, single=False)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    assert convert(scores, convert_to_numpy=True, convert_to_tensor=True, single=False) is scores
    listed = convert(scores, convert_to_numpy=False, convert_to_tensor=False, single=False)
    assert isinstance(listed, list)
    assert all(isinstance(score, torch.Tensor) for score in listed)
    assert isinstance(convert(scores, convert_to_numpy=True, convert_to_tensor=False, single=True), np.float32)
