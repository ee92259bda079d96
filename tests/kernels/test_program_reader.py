"""What crosses the border is read whole or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, make_dataclass, replace
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, Parameters, network

from fastce import _core
from fastce.spec import (
    Attention,
    DisentangledAttention,
    LayerNorm,
    RelativeBias,
    RotaryEmbedding,
)
from fastce.steps import program

BERT = program(*NETWORKS["as BERT"])
ATTENTION, NORM = Attention(3, 20), LayerNorm(1e-5)


def build(description: object, weights: dict[str, np.ndarray] | None = None) -> None:
    _core.Encoder(description, weights or {}, "fp32")  # type: ignore[arg-type]


def parts(part: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every dataclass in a description, with the fields and numbers that lead to it."""
    if is_dataclass(part):
        yield path, part
        for field in fields(part):
            yield from parts(getattr(part, field.name), (*path, field.name))
    elif isinstance(part, tuple):
        for number, inner in enumerate(part):
            yield from parts(inner, (*path, number))


def put(part: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A description with another value at the end of a path."""
    if not path:
        return value
    first, *rest = path
    if isinstance(first, int):
        return (*part[:first], put(part[first], tuple(rest), value), *part[first + 1 :])
    return replace(part, **{first: put(getattr(part, first), tuple(rest), value)})


def with_field(part: Any) -> Any:
    """The same object, of a class of the same name that has one more field."""
    kind = make_dataclass(type(part).__name__, [("new_idea", int)], bases=(type(part),), frozen=True, kw_only=True)
    return kind(**{field.name: getattr(part, field.name) for field in fields(part)}, new_idea=1)


EVERYTHING = [
    (name, path, part)
    for name in (
        "as BERT",
        "as Qwen",
        "as ModernBERT",
        "a longer chain",
        "bias by distance",
        "disentangled",
        "two tokens' difference",
    )
    for path, part in parts(program(*NETWORKS[name]))
]


@pytest.mark.parametrize("kind", sorted({type(part).__name__ for _, _, part in EVERYTHING}))
def test_a_field_that_is_not_known_is_refused(kind: str) -> None:
    name, path, part = next(x for x in EVERYTHING if type(x[2]).__name__ == kind)
    with pytest.raises(ValueError, match=rf"^{kind}\.new_idea: the C\+\+ engine does not know this field$"):
        build(put(program(*NETWORKS[name]), path, with_field(part)))


@pytest.mark.parametrize("kind", sorted({type(part).__name__ for _, _, part in EVERYTHING}))
def test_a_field_that_is_missing_is_refused(kind: str) -> None:
    name, path, part = next(x for x in EVERYTHING if type(x[2]).__name__ == kind)
    first, *rest = fields(part)
    poorer = make_dataclass(kind, [(field.name, Any) for field in rest], frozen=True)
    value = poorer(**{field.name: getattr(part, field.name) for field in rest})
    with pytest.raises(ValueError, match=rf"^{kind} has no field '{first.name}'$"):
        build(put(program(*NETWORKS[name]), path, value))


BIAS = RelativeBias(2, (0, 1, 2))
DISENTANGLED = DisentangledAttention(1, (0, 1), True, True, True, None)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (replace(ATTENTION, relation=NORM), "Attention.relation: 'LayerNorm' is none of RotaryEmbedding, RelativeBias"),
        (replace(ATTENTION, relation=BIAS), "RelativeBias.rows[2]: expected a row below 2, got 2"),
        (replace(ATTENTION, relation=DISENTANGLED), "DisentangledAttention.rows: expected a row for each distance"),
        (replace(ATTENTION, qk_norm=1.0), "Attention.qk_norm: 'float' is none of LayerNorm, RMSNorm"),
        (replace(ATTENTION, relation=RotaryEmbedding((1.0,) * 11)), "Attention.relation: expected at most 10"),
        (replace(ATTENTION, kv_heads=2), "Attention.kv_heads: expected a divisor of the 3 heads, got 2"),
        (replace(ATTENTION, heads=0), "Attention.heads: expected a whole number of at least 1, got 0"),
        (replace(ATTENTION, heads=True), "Attention.heads: expected a whole number of at least 1, got True"),
        (replace(ATTENTION, window=-1), "Attention.window: expected a whole number of at least 0, got -1"),
        (replace(ATTENTION, causal=1), "Attention.causal: expected True or False, got 1"),
        ("attention", "Attend.attention: 'str' is none of Attention"),
    ],
)
def test_attention_that_the_engine_cannot_compute_is_refused(attention: Attention, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        build(put(BERT, ("steps", 0, "attention"), attention))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("steps", 1, "feed_forward", "activation"), "swish", "FeedForward.activation: 'swish' is none of gelu,"),
        (("steps", 1, "end", "keep"), "both", "AddNorm.keep: 'both' is none of normed, sum"),
        (("steps", 1, "end", "norm", "eps"), "small", "LayerNorm.eps: expected a number, got 'small'"),
        (("steps", 1), NORM, "Program.steps[1]: 'LayerNorm' is none of Attend, Feed"),
        (("steps",), [], "Program.steps: expected a tuple, got []"),
        (("head", "pooling"), "max", "HeadSpec.pooling: 'max' is none of first, last, mean"),
        (("head", "steps"), (NORM,), "HeadSpec.steps[0]: 'LayerNorm' is none of Dense"),
        (("embeddings", "positions"), 512, "Embeddings.positions: 'int' is none of AbsolutePositions"),
        ((), {}, "program: 'dict' is none of Program"),
    ],
)
def test_values_that_are_not_known_are_refused(path: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        build(put(BERT, path, value))


def test_attention_behind_the_pooled_one_is_refused() -> None:
    steps = tuple(replace(x, pooled=True) if hasattr(x, "pooled") else x for x in BERT.steps)
    with pytest.raises(ValueError, match=r"layers\.1: attention follows where one row is left"):
        build(replace(BERT, steps=steps), arrays())


def arrays() -> dict[str, np.ndarray]:
    """Parameters of the network."""
    return {name: x.detach().numpy() for name, x in Parameters(*network()).by_name.items()}


def test_parameters_that_are_missing_of_another_shape_or_too_many_are_refused() -> None:
    name, weights = "layers.1.up.weight", arrays()
    with pytest.raises(ValueError, match=f"parameter '{name}' is missing"):
        build(BERT, {key: value for key, value in weights.items() if key != name})
    with pytest.raises(ValueError, match=rf"parameter '{name}': expected shape \[70, 52\], got \[70, 51\]"):
        build(BERT, weights | {name: weights[name][:, 1:]})
    with pytest.raises(ValueError, match=r"layers\.1\.up\.bias: expected a vector or a matrix"):
        build(BERT, weights | {"layers.1.up.bias": np.zeros((1, 1, 70), np.float32)})
    with pytest.raises(ValueError, match=r"parameter 'layers\.1\.gate\.weight' is not one of the network"):
        build(BERT, weights | {"layers.1.gate.weight": weights[name]})
