"""Every tolerance of the test suite, with the reason for its size."""

from __future__ import annotations

import torch

LOGITS = 1e-5
"""Logits in float32 against transformers, times max(1, |logit|): both round some hundred dependent sums to
2^-24, in another order. The promise that the README makes."""

SAME_PAIR = 1e-6
"""Scores of one pair in different batches: the matrix products may be blocked differently, which is the
rounding of one dot product."""

GRADIENT = 1e-4
"""Gradients against transformers, relative to the largest of a parameter: the logits' error,
amplified going backwards."""

TRAINED_WEIGHTS = 1e-5
"""Weights after ten steps against a transformers loop, with SGD, whose steps are proportional to the gradients."""

LOSS = 2e-5
"""Losses of the same logits, and their gradients, against sentence-transformers, times max(1, |expected|): both add at
most thirty terms, whose ten roundings to 2^-24 come in another order."""

FLOAT16_LOSS = 5e-3
"""Losses of logits of size 1 in float16 against float32: some ten roundings in a row, 2^-11 each."""

BF16_NOISE = 0.03
"""Relative noise of logits in bfloat16: some twelve operands in a row are rounded, by 2^-9 at most and 2^-10 in the
root mean square, which add as roots of sums to 0.0034; the softmax and weights larger than trained ones amplify that
up to eightfold."""

FP16_NOISE = BF16_NOISE / 8
"""The same in float16, whose roundings are an eighth of those."""

AMP_NOISE = 3 * BF16_NOISE
"""Relative noise of a training step under autocast: that of the logits goes into the loss, and backwards there are
twice as many products again."""

INT8_NOISE = 0.08
"""Relative noise of logits in int8: a row's range of some six standard deviations has 255 steps, a weight row's three
have 127, each rounded evenly (step / sqrt(12)), which is 0.01 a product and 0.035 for some twelve in a row; amplified
up to twofold."""

FP8_NOISE = 0.22
"""The same in e4m3, which rounds by 2^-4 at most and 2^-5 in the root mean square: 0.11 for some twelve operands in a
row, amplified up to twofold."""

FP8_SUM = 2.0**-13
"""What a sum of a block of products of e4m3 may be off by on GPUs, relative to the sum of their sizes: Hopper's tensor
cores keep 14 bits of it (https://arxiv.org/abs/2412.19437, section 3.5.2)."""


def relative_noise(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the error, relative to that of the expected values."""
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def close_to(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    """Whether `actual` is within `tolerance` x max(1, |expected|) everywhere, with equal shapes."""
    return actual.shape == expected.shape and bool(
        ((actual - expected).abs() <= tolerance * expected.abs().clamp(min=1.0)).all()
    )


def dot_product_bound(terms: int, largest_product: float, epsilon: float = torch.finfo(torch.float32).eps) -> float:
    """Error of a dot product in floating point: each of `terms` products and sums rounds once (Higham, section 3.1)."""
    return epsilon * (terms + 1) * terms * largest_product / (1 - epsilon * terms)


FLOAT32, FLOAT16, BFLOAT16 = 2.0**-24, 2.0**-11, 2.0**-8
"""The largest relative error of one rounding."""

ELEMENTARY = 3e-7
"""Error of the kernels' activations beyond that of their input: the polynomials' error, as stated beside them, and
some five roundings of numbers around 1."""

STEEPEST = 1.13
"""The largest slope of any activation, that of GELU at 1.41: by so much they amplify the error of their input."""


def linear_bound(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Error of `x @ weight.T + bias` in float32, `[rows, out_features]`: a rounding for each product and each sum."""
    size = x.double().abs() @ weight.double().abs().T + bias.double().abs()
    return 2 * FLOAT32 * (x.shape[1] + 2) * size


def layer_norm_bound(summed: torch.Tensor, error: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Error of LayerNorm in float32, `[rows, size]`, for inputs with an error of their own.

    The four or more lanes of a vector sum in turns, so a mean has size / 4 roundings. An error of the inputs, of size e
    at most, moves a normalised value by e / deviation for itself, the same for the mean, and as much again times the
    value for the deviation.
    """
    values = summed.double()
    deviation = (values.var(-1, correction=0, keepdim=True) + eps).sqrt()
    rounding = FLOAT32 * (values.shape[-1] / 4 + 8) * values.abs().amax(-1, keepdim=True)
    largest = (error.amax(-1, keepdim=True) + rounding) / deviation
    normalised = (values - values.mean(-1, keepdim=True)).abs() / deviation
    return largest * (2 + normalised) * weight.abs() + 8 * FLOAT32 * (1 + normalised * weight.abs())


def attention_bound(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, weight_rounding: float) -> float:
    """Error of attention of float32 operands whose weights are rounded once more, by `weight_rounding` relative.

    An error d of all scores changes each weight by a factor of e^d, in the sum and in its norm; with the exponential's
    own error and one rounding per key in both sums, that times the largest value is the error.
    """
    dim, keys = query.shape[1], key.shape[0]
    score = float((query.double().abs() @ key.double().abs().T).max()) / dim**0.5
    return float(value.abs().max()) * (2 * FLOAT32 * ((dim + 6) * score + keys + 6) * 2 + weight_rounding)


def training_bound(
    expected: torch.Tensor, terms: int, amplification: float = 1.0, rounding: float = 0.0
) -> torch.Tensor:
    """Error of a training op's result or gradient in float32, of its shape.

    `terms` numbers, none beyond a few times the largest result, are added one after the other, and some twenty further
    operations round; an error of an exponent multiplies all by `amplification`. The result itself may be rounded once
    more, by `rounding` relative.
    """
    values = expected.double().abs()
    return 4 * FLOAT32 * (terms + 20) * amplification * values.max().clamp(min=1.0) + rounding * values


def half_precision_bound(expected: torch.Tensor, rounding: float, amplification: float = 1.0) -> torch.Tensor:
    """Error of a GPU kernel's result or gradient in half precision, of its shape; sums are in float32.

    The result is rounded, and so are operands in between: an attention weight, the gradient of a score, the output that
    the mean gradient is computed from. The errors of each of these three add up to at most `rounding` times the sum of
    the sizes of what is added, which is a few times the largest result, for terms differ in sign; where that sum is
    larger, by `amplification`.
    """
    values = expected.double().abs()
    return rounding * (values + 3 * amplification * values.max().clamp(min=1.0))
