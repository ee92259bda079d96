"""Outliers moved from activations into weights before both become int8 (https://arxiv.org/abs/2211.10438).

Activations have one scale a token, so a channel far larger than the others leaves these few of the 256 steps. Where a
channel is written and read by linear operations alone, dividing what writes it and multiplying what reads it by one
number changes nothing in exact arithmetic. Here that number makes a channel's activations and weights equally large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fastce.steps import AddNorm, Attend, Feed, Program, Step, kv_heads

Weights = dict[str, np.ndarray]

OUTLIER = 8.0
"""A channel so many times as large as their median makes a product be smoothed."""


TINY = 1e-30


class Channels(NamedTuple):
    """What lies between the parameters that write some channels and the matrices that read them.

    Attributes:
        writers: Parameters whose rows, or elements, are the channels: dividing them divides the channels.
        readers: Matrices whose columns are the channels.
        sizes: How large the channels' values are, up to a common factor, `[channels]`.
        copies: How many times in a row each block of `block` channels is read.
        block: Channels of a block.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    sizes: np.ndarray
    copies: int = 1
    block: int = 1

    def read(self, per_channel: np.ndarray) -> np.ndarray:
        """Numbers of the channels in the order in which the readers see them."""
        return per_channel.reshape(-1, 1, self.block).repeat(self.copies, axis=1).ravel()


def smoothed(network: Program, weights: Mapping[str, np.ndarray]) -> tuple[Weights, int]:
    """Smooths the channels that have outliers.

    Args:
        network: The network.
        weights: Its parameters, float32.

    Returns:
        The parameters, changed ones as copies, and of how many places channels were smoothed.
    """
    result = dict(weights)
    count = 0
    done: set[str] = set()
    for channels in all_channels(network, result):
        if channels.writers[0] in done:
            continue
        done.add(channels.writers[0])
        if channels.sizes.max() <= OUTLIER * np.median(channels.sizes):
            continue
        count += 1
        scale = balance(channels, [result[name] for name in channels.readers])
        for name in channels.writers:
            result[name] = result[name] / scale.reshape(-1, *[1] * (result[name].ndim - 1))
        for name in channels.readers:
            result[name] = result[name] * channels.read(scale)
    return result, count


def balance(channels: Channels, readers: list[np.ndarray]) -> np.ndarray:
    """The number of each channel that makes its values and the weights that read it equally large, `[channels]`.

    Each row of a matrix has a scale of its own in int8, so weights are large or small within their row.
    """
    sizes = channels.read(channels.sizes)
    rows = [np.abs(matrix) / np.linalg.norm(matrix * sizes, axis=1, keepdims=True).clip(min=TINY) for matrix in readers]
    columns = np.max([matrix.max(axis=0) for matrix in rows], axis=0)
    largest = columns.reshape(-1, channels.copies, channels.block).max(axis=1).ravel()
    scale = np.sqrt(channels.sizes.clip(min=TINY) / largest.clip(min=TINY))
    scale = np.where((channels.sizes > TINY) & (largest > TINY), scale, 1.0)
    result: np.ndarray = (scale / np.exp(np.log(scale).mean())).astype(np.float32)
    return result


def all_channels(network: Program, weights: Weights) -> Iterator[Channels]:
    """The channels that are written and read by linear operations alone, in the order of the computation."""
    before: AddNorm = network.first
    for step in network.steps:
        yield from normed_channels(before, step, weights)
        if isinstance(step, Attend):
            yield attention_channels(before, step, weights)
        elif step.feed_forward.gated:
            yield gated_channels(before, step, weights)
        before = step.end


def normed_channels(before: AddNorm, step: Step, weights: Weights) -> Iterator[Channels]:
    """What a norm hands to a sublayer; where the norm's result is the stream, others read it, too."""
    if before.norm is None or before.keep != "sum":
        return
    parts = ("query", "key", "value") if isinstance(step, Attend) else ("gate", "up")
    readers = tuple(name for part in parts if (name := f"{step.name}.{part}.weight") in weights)
    writers = tuple(name for part in ("weight", "bias") if (name := f"{before.name}.{part}") in weights)
    yield Channels(writers, readers, np.sum([np.abs(weights[name]) for name in writers], axis=0))


def attention_channels(before: AddNorm, step: Attend, weights: Weights) -> Channels:
    """Values on their way to the output, which several heads may share."""
    part = step.attention
    sizes = row_sizes(before, f"{step.name}.value", weights)
    copies = part.heads // kv_heads(part)
    readers = (f"{step.name}.attention_output.weight",)
    return Channels(parameters_of(f"{step.name}.value", weights), readers, sizes, copies, part.head_dim)


def gated_channels(before: AddNorm, step: Feed, weights: Weights) -> Channels:
    """What a gate lets through: linear in what it gates."""
    gate, up = (row_sizes(before, f"{step.name}.{part}", weights) for part in ("gate", "up"))
    return Channels(parameters_of(f"{step.name}.up", weights), (f"{step.name}.down.weight",), gate * up)


def parameters_of(name: str, weights: Weights) -> tuple[str, ...]:
    """The weight and, where there is one, the bias of a linear layer."""
    return tuple(full for part in ("weight", "bias") if (full := f"{name}.{part}") in weights)


def row_sizes(before: AddNorm, name: str, weights: Weights) -> np.ndarray:
    """How large a linear layer's results are where its normed input has elements of about 1, `[out_features]`."""
    norm = weights.get(f"{before.name}.weight")
    weight = weights[f"{name}.weight"]
    sizes = np.linalg.norm(weight if norm is None else weight * norm, axis=1)
    return sizes + np.abs(weights.get(f"{name}.bias", np.zeros(1, dtype=np.float32)))
