"""The ops of training and their gradients against the reference ops in float64, at every ISA level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from isa import every_level
from training_check import DTYPES, SEEDS, Result, check, double, leaf, mask, rotary

from fastce import _core
from fastce.backends.cpp import functions, ops
from fastce.backends.reference import ops as reference
from fastce.backends.weights import NormWeights, plain_linear
from fastce.packing import Spans
from fastce.spec import Activation, Attention, LayerNorm, Norm, RMSNorm
from fastce.steps import Keep

NORMS: dict[str, Norm] = {
    "layer": LayerNorm(1e-5),
    "layer without bias": LayerNorm(1e-5, bias=False),
    "rms": RMSNorm(1e-5),
}
SHAPES = [(1, 2), (3, 7), (70, 31), (130, 100), (64, 384), (65, 16)]


def amplification_of(norm: Norm, summed: torch.Tensor) -> float:
    """A norm divides errors by the size of its input, once in the result and twice in gradients."""
    squares = summed.square().mean(-1) if isinstance(norm, RMSNorm) else summed.var(-1, correction=0)
    return 1 + 4 / float((squares + norm.eps).min())


@every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "keep"), [("layer", "normed"), ("layer", "sum"), ("layer without bias", "sum"), ("rms", "normed")]
)
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_norm(
    at_level: Callable[[str], None],
    isa: str,
    rows: int,
    columns: int,
    probability: float,
    kind: str,
    keep: Keep,
    dtype: torch.dtype,
) -> None:
    at_level(isa)
    torch.manual_seed(rows + columns)
    norm = NORMS[kind]
    first, second = (seed if probability else 0 for seed in SEEDS)
    dropouts = (first, probability), (second, probability)
    factors = [mask(isa, dropout, rows, columns) for dropout in dropouts]
    inputs = [
        leaf(torch.randn(rows, columns), dtype),
        leaf(torch.randn(columns)),
        leaf(torch.randn(rows, columns)),
        leaf(torch.randn(columns)),
        leaf(torch.randn(columns)),
    ]
    used = inputs[: 5 if isinstance(norm, LayerNorm) and norm.bias else 4]

    def run(x: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor, *weights: torch.Tensor) -> Result:
        norm_bias = weights[1] if len(weights) > 1 else None
        result: Result = functions.NormFunction.apply(
            x, bias, residual, weights[0], norm_bias, norm, *dropouts, keep == "sum"
        )
        return result

    def expected(x: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor, *weights: torch.Tensor) -> Result:
        total = (x + bias) * factors[0] + residual
        norm_bias = weights[1] if len(weights) > 1 else None
        normed = reference.normalize(total, NormWeights(norm, weights[0], norm_bias)) * factors[1]
        return (total, normed) if keep == "sum" else normed

    spread = ((inputs[0] + inputs[1]) * factors[0] + inputs[2]).detach()
    check(run, expected, used, rows + columns, amplification_of(norm, spread))


@every_level
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("keep", get_args(Keep))
@pytest.mark.parametrize("bias", [False, True])
def test_add_norm(at_level: Callable[[str], None], isa: str, bias: bool, keep: Keep, norm: Norm) -> None:
    at_level(isa)
    torch.manual_seed(0)
    inputs = [leaf(torch.randn(9, 30)), leaf(torch.randn(9, 50)), leaf(torch.randn(50, 30)), leaf(torch.randn(50))]
    inputs += [leaf(torch.randn(50)) for _ in range(2 if isinstance(norm, LayerNorm) and norm.bias else 1)]
    if not bias:
        del inputs[3]

    def end(module: Any) -> Callable[..., Result]:
        def run(x: torch.Tensor, stream: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor) -> Result:
            linear = plain_linear(weight, others[0] if bias else None)
            norm_weight, *norm_bias = others[bias:]
            weights = NormWeights(norm, norm_weight, norm_bias[0] if norm_bias else None)
            result: Result = module.add_norm(x, linear, stream, weights, keep, 0.0)
            return result

        return run

    check(end(ops), end(reference), inputs, 90, amplification=20)


@every_level
def test_a_result_that_nobody_reads_has_no_gradient(at_level: Callable[[str], None], isa: str) -> None:
    at_level(isa)
    torch.manual_seed(0)
    for number in (0, 1):
        stream, weight = leaf(torch.randn(9, 50)), leaf(torch.randn(50))
        options = LayerNorm(1e-5), functions.NO_DROPOUT, functions.NO_DROPOUT, True
        results = functions.NormFunction.apply(None, None, stream, weight, None, *options)
        results[number].sum().backward()
        exact = double(stream)
        (exact if number == 0 else F.layer_norm(exact, (50,), double(weight), None, 1e-5)).sum().backward()
        assert stream.grad is not None
        assert exact.grad is not None
        assert (stream.grad - exact.grad).abs().max() < 1e-5


@every_level
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_normalize(at_level: Callable[[str], None], isa: str, norm: Norm) -> None:
    at_level(isa)
    torch.manual_seed(0)
    inputs = [leaf(torch.randn(9, 3, 20)), leaf(torch.randn(20)), leaf(torch.randn(20))]
    if not (isinstance(norm, LayerNorm) and norm.bias):
        del inputs[2]

    def run(module: Any) -> Callable[..., Result]:
        return lambda x, weight, bias=None: module.normalize(x, NormWeights(norm, weight, bias))

    check(run(ops), run(reference), inputs, 50, amplification_of(norm, inputs[0].detach()))


ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


@every_level
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (70, 31), (130, 100)])
def test_activations(
    at_level: Callable[[str], None],
    isa: str,
    rows: int,
    columns: int,
    gated: bool,
    bias: bool,
    activation: Activation,
    dtype: torch.dtype,
) -> None:
    at_level(isa)
    torch.manual_seed(rows + columns)
    inputs = [leaf(3 * torch.randn(rows, (1 + gated) * columns), dtype)]
    inputs += [leaf(torch.randn(columns)) for _ in range(bias * (1 + gated))]

    def run(x: torch.Tensor, *biases: torch.Tensor) -> torch.Tensor:
        halves = [*x.split(columns, -1), None][:2]  # halves of one product
        first, second = [*biases, None, None][:2]
        result: torch.Tensor = functions.ActivateFunction.apply(activation, halves[0], first, halves[1], second)
        return result

    def expected(x: torch.Tensor, *biases: torch.Tensor) -> torch.Tensor:
        parts = x.split(columns, -1)
        if bias:
            parts = tuple(part + b for part, b in zip(parts, biases, strict=True))
        activated = reference.activate(parts[0], activation)
        return activated * parts[1] if gated else activated

    check(run, expected, inputs, rows)


@every_level
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_over_their_range(at_level: Callable[[str], None], isa: str, activation: Activation) -> None:
    at_level(isa)
    extremes = torch.tensor([0.0, -0.0, 1e-30, 50.0, -50.0, 1e4, -1e4, 1e15, -1e15])
    x = torch.cat([torch.linspace(-12, 12, 30_000), extremes])
    values, exact = leaf(x[None]), double(x)
    output = functions.ActivateFunction.apply(activation, values, None, None, None)
    expected = reference.activate(exact, activation)
    output.sum().backward()
    expected.sum().backward()
    assert values.grad is not None
    assert exact.grad is not None
    assert ((output[0] - expected).abs() <= 4e-7 * expected.abs().clamp(min=1.0)).all()
    assert (values.grad[0] - exact.grad).abs().max() < 4e-7
    broken = leaf(torch.tensor([[float("nan")]]))
    output = functions.ActivateFunction.apply(activation, broken, None, None, None)
    output.backward(torch.ones(1, 1))
    assert output.isnan().all()
    assert broken.grad is not None
    assert broken.grad.isnan().all() or activation == "relu"


def test_results_are_written_only_where_that_is_allowed() -> None:
    x, output = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    output.flags.writeable = False
    call = {"activation": "relu", "x": x, "bias": None, "factor": None, "factor_bias": None}
    with pytest.raises(ValueError, match="not writeable"):
        _core.Training().activate_forward(**call, output=output)
    with pytest.raises(ValueError, match="all values in the type of x"):
        _core.Training().activate_forward(**call, output=np.zeros((2, 3), np.int16))
    with pytest.raises(ValueError, match="activation 'swish' is none of gelu, gelu_tanh, relu, silu, tanh"):
        _core.Training().activate_forward(**call | {"activation": "swish"}, output=np.zeros((2, 3), np.float32))


@every_level
def test_embedding(at_level: Callable[[str], None], isa: str) -> None:
    at_level(isa)
    torch.manual_seed(0)
    ids = [torch.randint(0, rows, (300,), dtype=torch.int32) for rows in (40, 2, 20)]
    inputs = [leaf(torch.randn(rows, 70)) for rows in (40, 2, 20)]
    check(
        lambda *tables: functions.EmbeddingFunction.apply([x.numpy() for x in ids], *tables),
        lambda *tables: reference.embedding_sum(list(zip(ids, tables, strict=True))),
        inputs,
        300,
    )
    with pytest.raises(ValueError, match="ids: 40 is not below 40"):
        functions.EmbeddingFunction.apply([np.array([40], np.int32)], inputs[0])


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_is_fair_and_the_same_at_every_level(probability: float) -> None:
    rows, columns = 300, 387
    masks = [
        _core.Training(isa=isa).dropout_factors((seed, probability), rows, columns)
        for isa in _core.isa_levels()
        for seed in SEEDS
    ]
    for first, other in zip(masks[:2] * (len(masks) // 2), masks, strict=True):
        assert np.array_equal(first, other)
    for factors in masks[:2]:
        dropped = factors == 0
        assert np.allclose(factors[~dropped], 1 / (1 - probability))
        deviation = (probability * (1 - probability)) ** 0.5
        assert abs(dropped.mean() - probability) < 5 * deviation / (rows * columns) ** 0.5
        assert abs(dropped.mean(0) - probability).max() < 5 * deviation / rows**0.5
        assert abs(dropped.mean(1) - probability).max() < 5 * deviation / columns**0.5
        for shifted in (dropped[1:] & dropped[:-1], dropped[:, 1:] & dropped[:, :-1]):
            expected = probability**2
            assert abs(shifted.mean() - expected) < 5 * (expected * (1 - expected) / shifted.size) ** 0.5
    both = (masks[0] == 0) & (masks[1] == 0)
    assert abs(both.mean() - probability**2) < 5 * (probability**2 * (1 - probability**2) / both.size) ** 0.5


def test_gradients_depend_on_no_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = Attention(heads=4, head_dim=12, kv_heads=2, relation=rotary(6), window=50)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        torch.manual_seed(0)
        x, weight, bias = leaf(torch.randn(500, 48)), leaf(torch.randn(48)), leaf(torch.randn(48))
        norm = weight, bias, LayerNorm(1e-5), (1, 0.1), (2, 0.1), True
        total, output = functions.NormFunction.apply(x, bias, x.detach(), *norm)
        keys = total[:, :24].unflatten(1, (2, 12))
        spans = Spans.of([300, 200])
        context = ops.attention(output.unflatten(1, (4, 12)), keys, keys, spans, attention, None, 0.1, None).flatten(1)
        functions.ActivateFunction.apply("silu", context, bias, total, bias).sum().backward()
        results.append([x.grad, weight.grad, bias.grad])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_seeds_come_from_torch() -> None:
    torch.manual_seed(5)
    seeds = [functions.draw(0.5) for _ in range(3)]
    torch.manual_seed(5)
    assert seeds == [functions.draw(0.5) for _ in range(3)]
    assert len(set(seeds)) == 3
    assert functions.draw(0.0) == functions.NO_DROPOUT
