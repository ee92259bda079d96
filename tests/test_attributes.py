from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_models import PAIRS
from torch import nn

from fastce import CrossEncoder
from fastce.attributes import CONSTRUCTOR_ONLY

Tiny = Callable[..., str]


def test_max_seq_length_is_max_length(tiny: Tiny) -> None:
    model, short = CrossEncoder(tiny("bert")), CrossEncoder(tiny("bert"), max_length=12)
    assert model.max_seq_length == 64
    model.max_seq_length = 12
    assert (model.max_seq_length, model.max_length) == (12, 12)
    assert np.array_equal(model.predict(PAIRS), short.predict(PAIRS))
    with pytest.raises(ValueError, match="max_length: expected a positive whole number, got 0"):
        model.max_seq_length = 0


def test_the_attribute_of_2_2_sets_the_activation_function(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    logits = model.predict(PAIRS[:5], activation_fn=nn.Identity())
    with pytest.warns(DeprecationWarning, match="now called activation_fn") as caught:
        model.default_activation_function = nn.Identity()
    assert caught[0].filename == __file__
    assert np.array_equal(model.predict(PAIRS[:5]), logits)
    with pytest.warns(DeprecationWarning, match="now called activation_fn"):
        assert isinstance(model.default_activation_function, nn.Identity)


def test_an_attribute_takes_effect_or_is_refused(tiny: Tiny) -> None:
    """Of all that sentence-transformers has, 2.2 included, of modules, and of our own constructor's arguments."""
    from sentence_transformers import CrossEncoder as Reference

    model = CrossEncoder(tiny("bert"))
    reference = Reference(tiny("bert"))
    names = {name for name in dir(reference) if not name.startswith("_")} | {"_target_device", "best_score"}
    names |= set(inspect.signature(CrossEncoder.__init__).parameters) | {"forward", "eval", "half"}
    with_effect = {"prompts", "default_prompt_name"} | {name for name in names if hasattr(CrossEncoder, name)}
    for name in sorted(names - with_effect - {"self", "model_card_data"}):
        with pytest.raises(AttributeError, match=f"CrossEncoder: setting {name} would have no effect, "):
            setattr(model, name, None)
    for name in CONSTRUCTOR_ONLY:
        assert name in inspect.signature(CrossEncoder.__init__).parameters


def test_attributes_of_callers_are_theirs(tiny: Tiny) -> None:
    class Named(CrossEncoder):
        def __init__(self, name: str, revision: str):
            self.revision = revision
            super().__init__(name)
            self.training = True

    model = Named(tiny("bert"), "mine")
    assert (model.revision, model.training) == ("mine", True)
    plain = CrossEncoder(tiny("bert"))
    plain.note = "mine"  # type: ignore[attr-defined]
    plain.predict = lambda *_: None  # type: ignore[method-assign]
    assert plain.predict(PAIRS[:1]) is None


def test_falsy_objects_are_meant(tiny: Tiny) -> None:
    """What is empty or 0 and yet was passed: `Sequential()` is the identity, device 0 a GPU, the name "" a name."""
    logits = CrossEncoder(tiny("bert")).predict(PAIRS[:5], activation_fn=nn.Identity(), convert_to_tensor=True)
    model = CrossEncoder(tiny("bert"), activation_fn=nn.Sequential())
    assert torch.equal(model.predict(PAIRS[:5], convert_to_tensor=True), logits)
    scores = CrossEncoder(tiny("bert")).predict(PAIRS[:5], activation_fn=nn.Sequential(), convert_to_tensor=True)
    assert torch.equal(scores, logits)
    prompts = {"": "a short ", "query": "a long "}
    model = CrossEncoder(tiny("bert"), prompts=prompts, default_prompt_name="")
    with_prompt = CrossEncoder(tiny("bert")).predict(PAIRS[:5], prompt="a short ")
    assert np.array_equal(model.predict(PAIRS[:5]), with_prompt)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: 0 is none"):
            CrossEncoder(tiny("bert"), device=0)


@pytest.mark.parametrize("name", ["identity", "torch.nn.Identity"])
def test_activation_functions_by_name(tiny: Tiny, name: str) -> None:
    model = CrossEncoder(tiny("bert"))
    logits = model.predict(PAIRS[:5], activation_fn=nn.Identity(), convert_to_tensor=True)
    assert torch.equal(model.predict(PAIRS[:5], activation_fn=name, convert_to_tensor=True), logits)
    model.activation_fn = name
    assert isinstance(model.activation_fn, nn.Identity)
    assert torch.equal(model.predict(PAIRS[:5], convert_to_tensor=True), logits)
    with pytest.raises(ValueError, match=r"activation_fn: expected a function or one of .*, got 'sigmoyd'"):
        CrossEncoder(tiny("bert"), activation_fn="sigmoyd")
