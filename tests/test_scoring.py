from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PAIRS
from torch import nn

from fastce import CrossEncoder
from fastce.scoring import (
    ACTIVATION_FUNCTIONS,
    activation_from_name,
    activation_name,
    check_activation,
    convert,
    scores_from_logits,
)
from fastce.spec import Precision

Tiny = Callable[..., str]

OWN_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "torch.sigmoid": torch.sigmoid,
    "temperature": lambda logits: torch.sigmoid(logits / 3).squeeze(),
    "sum": lambda logits: torch.expm1(logits).sum(dim=1),
    "softmax": lambda logits: torch.softmax(logits * 2, 1),
    "arguments": nn.Softplus(beta=2),
    "in place": torch.Tensor.sigmoid_,
    "sequential": nn.Sequential(nn.Tanh(), nn.Sigmoid()),
}
PLAIN_FUNCTIONS = {name: make() for name, make in ACTIVATION_FUNCTIONS.items()}


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


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("apply_softmax", [False, True])
@pytest.mark.parametrize("num_labels", [1, 2, 3, 5, 70])
@pytest.mark.parametrize("name", [*PLAIN_FUNCTIONS, *OWN_FUNCTIONS])
def test_a_score_does_not_depend_on_its_place(name: str, num_labels: int, apply_softmax: bool) -> None:
    activation = (PLAIN_FUNCTIONS | OWN_FUNCTIONS)[name]
    probes = torch.randn(7, num_labels) * 4
    alone = torch.stack([scores_from_logits(probe[None], activation, apply_softmax)[0] for probe in probes])
    # Places at and around multiples of the vectors' sizes, and of the shares that threads take.
    by_row = name in OWN_FUNCTIONS or num_labels > 64
    for size in (2, 3, 5, 17, 37, 50, 63, 64, 65, 200, 1000) if by_row else (17, 37, 200, 4097, 20_000):
        logits = torch.randn(size, num_labels)
        places = torch.randperm(size)[: 5 * len(probes)]
        which = torch.arange(len(places)) % len(probes)
        logits[places] = probes[which]
        scores = scores_from_logits(logits, activation, apply_softmax)
        assert torch.equal(scores[places], alone[which]), size


@pytest.mark.parametrize(
    "activation",
    [
        lambda logits: (logits - logits.min()) / (logits.max() - logits.min()),
        lambda logits: torch.softmax(logits, dim=0),
        nn.Softmax(dim=0),
        lambda logits: logits[logits > -100],
    ],
)
def test_a_function_that_compares_pairs_sees_all_of_them(activation: Any) -> None:
    logits = torch.randn(30, 1)
    assert torch.equal(scores_from_logits(logits, activation, False), activation(logits).reshape(30))


def test_what_an_activation_function_gives_is_checked() -> None:
    squeezed = scores_from_logits(torch.ones(1, 3), torch.squeeze, False)
    assert squeezed.tolist() == [[1.0, 1.0, 1.0]]
    assert scores_from_logits(torch.ones(1, 1), torch.squeeze, False).tolist() == [1.0]
    with pytest.raises(ValueError, match=r"activation_fn: expected it to give 4 rows, got a tensor of shape \[\]"):
        scores_from_logits(torch.ones(4, 1), torch.mean, False)
    with pytest.raises(TypeError, match="activation_fn: expected it to give a tensor, got ndarray"):
        scores_from_logits(torch.ones(4, 1), lambda logits: logits.numpy(), False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sigmoid", nn.Sigmoid), ("Identity", nn.Identity), ("log_softmax", nn.LogSoftmax), ("torch.nn.ReLU", nn.ReLU)],
)
def test_names_of_callers(name: str, kind: type[nn.Module]) -> None:
    assert type(check_activation(name)) is kind


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("sigmoyd", ValueError, "activation_fn: expected a function or one of Identity, Sigmoid, .*, got 'sigmoyd'"),
        (nn.Sigmoid, TypeError, "activation_fn: expected a function, got the class Sigmoid; make an object of it"),
        (None, TypeError, "activation_fn: expected a function, got None"),
        (3, TypeError, "activation_fn: expected a function, got int 3"),
    ],
)
def test_what_is_no_activation_function(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_activation(value)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("num_labels", [1, 3])
def test_a_pair_has_one_score_wherever_it_stands(tiny: Tiny, num_labels: int, precision: Precision) -> None:
    model = CrossEncoder(tiny("bert", num_labels=num_labels), precision=precision, activation_fn="sigmoid")
    for pair in PAIRS[1:40:3]:
        alone = model.predict(pair)
        assert np.array_equal(model.predict([pair] * 37), [alone] * 37)
        for number in (50, 141):
            others = (PAIRS * 2)[:number]
            assert np.array_equal(model.predict([*others, pair, pair]), [*model.predict(others), alone, alone])
        if num_labels == 1:
            ranking = model.rank(pair[0], [pair[1]] * 37)
            assert [entry["corpus_id"] for entry in ranking] == list(range(37))
            assert {entry["score"] for entry in ranking} == {float(alone)}
