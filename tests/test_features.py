"""Features are found by walking descriptions: none can be forgotten, and a backend that lacks one says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from networks import NETWORKS, Parameters, request

from fastce import spec
from fastce.backends.base import BACKENDS, available_backends, choose, load_backend
from fastce.features import FEATURES, STRUCTURE, features, features_of, missing
from fastce.spec import EncoderSpec, HeadSpec

CLASSES = [value for value in vars(spec).values() if dataclasses.is_dataclass(value)]


def possible() -> Iterator[str]:
    """Every feature that the classes of the description allow, from their types alone."""
    for kind in CLASSES:
        if kind.__name__ not in STRUCTURE:
            yield kind.__name__
        for name, hint in get_type_hints(kind).items():
            options = [hint] if get_origin(hint) is Literal else list(get_args(hint)) or [hint]
            place = f"{kind.__name__}.{name}"
            for option in options:
                if option is bool:
                    yield from (f"{place}=yes", f"{place}=no")
                elif get_origin(option) is Literal:
                    yield from (f"{place}={word}" for word in get_args(option))
            if type(None) in options and not any(get_origin(option) is Literal for option in options):
                yield place


def test_every_feature_that_can_be_has_its_words() -> None:
    assert set(possible()) == FEATURES.keys()


def test_features_are_those_of_all_parts() -> None:
    found = features(*NETWORKS["as ModernBERT"])
    assert found >= {"RotaryEmbedding", "Attention.window", "PreNorm", "FeedForward.gated=yes", "LayerNorm.bias=no"}
    assert not found & {"PostNorm", "Attention.causal=yes", "AbsolutePositions", "Layer.stored"}
    assert found <= FEATURES.keys()


def networks_with(feature: str) -> list[str]:
    return [name for name, parts in NETWORKS.items() if feature in features(*parts)]


@pytest.mark.parametrize("backend", ["cpp", "triton", "reference"])
@pytest.mark.parametrize("feature", FEATURES)
def test_a_backend_refuses_what_it_lacks(feature: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each feature is taken away from the backend once, if it has it; then a network that asks for it is refused."""
    engine: Any = load_backend(backend)
    module = __import__(engine.__module__, fromlist=["CAN"])
    names = networks_with(feature)
    if not names:
        assert feature not in module.CAN or feature == "Attention.qk_norm", "a feature that no network here asks for"
        assert missing(frozenset({feature}), module.CAN - {feature}) == [f"it has no {FEATURES[feature]}"]
        return
    monkeypatch.setattr(module, "CAN", module.CAN - {feature})
    asked = request(NETWORKS[names[0]], Parameters(*NETWORKS[names[0]]))
    assert f"it has no {FEATURES[feature]}" in engine.unsupported(asked)
    with pytest.raises(ValueError, match=f"{backend}: .*it has no {FEATURES[feature]}"):
        choose(backend, asked)


def test_a_field_that_nobody_knows_is_a_feature_that_nobody_has() -> None:
    """What is added to a description later is refused by every backend until its words and its code are there."""
    encoder, head = NETWORKS["as BERT"]

    @dataclasses.dataclass(frozen=True)
    class Sharper(type(encoder.layers[0].attention)):  # type: ignore[misc]
        sharp: bool = True

    plain = encoder.layers[0].attention
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    layer = dataclasses.replace(encoder.layers[0], attention=Sharper(**fields))
    changed = dataclasses.replace(encoder, layers=(layer,) * 3)
    asked = request((changed, head), Parameters(encoder, head))
    for backend in ("cpp", "triton", "reference"):
        assert "it has no Sharper.sharp=yes" in load_backend(backend).unsupported(asked)


def test_what_was_passed_over_is_kept() -> None:
    asked = request(NETWORKS["as BERT"], Parameters(*NETWORKS["as BERT"]))
    asked = dataclasses.replace(asked, device=torch.device("cuda"))
    choice = choose("auto", asked)
    assert choice.name == "reference"
    assert choice.passed_over["cpp"].reasons == ("it runs on the CPU, not on cuda",)
    assert list(available_backends()) == list(BACKENDS)
    assert repr(choice.passed_over["cpp"]) == "<unavailable: it runs on the CPU, not on cuda>"
    found = available_backends(device="cuda")
    assert [bool(found[name]) for name in ("cpp", "reference")] == [False, True]
    assert repr(found["reference"]) == "<available>"


def test_short_words_for_features() -> None:
    assert features_of("RMSNorm Attention.bias=yes|no") == {"RMSNorm", "Attention.bias=yes", "Attention.bias=no"}
    with pytest.raises(KeyError, match=r"Attention\.byas=yes"):
        features_of("Attention.byas=yes")


def test_equal_parts_are_equal_networks() -> None:
    """Descriptions are values: they can be compared, hashed and kept as keys."""
    for encoder, head in NETWORKS.values():
        assert isinstance(encoder, EncoderSpec)
        assert isinstance(head, HeadSpec)
        assert hash((encoder, head)) == hash((dataclasses.replace(encoder), dataclasses.replace(head)))
