"""Small batches as CUDA graphs: launching their kernels one by one takes the host longer than they take the device.

A graph has the shapes of a bucket, into which batches of fewer tokens fit as well: tokens behind the last sequence are
computed, but belong to none, and sequences behind the last one are empty.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch

from fastce.backends.triton.transfer import to_device
from fastce.packing import PackedBatch, Spans

MOST_NUMBERS = 1 << 23
"""Numbers of a batch's stream, tokens times width, that a graph is used for: beyond, kernels take longer than launches
(`make gpu-costs`). 21,845 tokens of MiniLM, 10,922 of BERT."""

MOST_GRAPHS = 32
"""Graphs that are kept; the one that was used longest ago goes first."""

STEPS = 16
"""Buckets of tokens from a power of two to the next one: at most a sixteenth is computed in vain."""

Replay = Callable[[], None]
Capture = Callable[[Callable[[], torch.Tensor]], tuple[Replay, torch.Tensor]]
"""Takes what is to be computed; returns what computes it again, and where the result then lies."""


class Bucket(NamedTuple):
    """Shapes of a graph.

    Attributes:
        tokens: Rows of tokens.
        pairs: Sequences.
        longest: Tokens of the longest sequence that its tiles are cut for.
    """

    tokens: int
    pairs: int
    longest: int


def bucket_of(spans: Spans) -> Bucket:
    """The bucket of a batch; empty sequences begin behind the last one, and where they do there is a token."""
    pairs = power_of_2(len(spans.lengths))
    needed = sum(spans.lengths) + (pairs > len(spans.lengths))
    step = max(1, power_of_2(needed) // (2 * STEPS))
    return Bucket(-(-needed // step) * step, pairs, power_of_2(spans.longest))


def power_of_2(size: int) -> int:
    """The smallest power of two that is not below a size."""
    return 1 << (size - 1).bit_length()


def fill(buffers: PackedBatch, batch: PackedBatch) -> None:
    """Copies a batch that lies on the device into the buffers of its bucket; what is behind it is never looked at.

    Token ids behind it are those of earlier batches, so they are in the tables.
    """
    tokens, pairs = len(batch.input_ids), len(batch.spans.lengths)
    for buffer, part in (
        (buffers.input_ids, batch.input_ids),
        (buffers.token_type_ids, batch.token_type_ids),
        (buffers.position_ids, batch.position_ids),
    ):
        buffer[:tokens] = part
    buffers.spans.cu_seqlens[: pairs + 1] = batch.spans.cu_seqlens
    buffers.spans.cu_seqlens[pairs + 1 :] = tokens


class Graph:
    """What is computed of a bucket, ready to be started as one.

    Args:
        bucket: Its shapes.
        run: Computes logits of a batch on the device.
        device: The device.
        capture: Makes a graph.
    """

    def __init__(
        self, bucket: Bucket, run: Callable[[PackedBatch], torch.Tensor], device: torch.device, capture: Capture
    ):
        ids, types, places = torch.zeros(3, bucket.tokens, dtype=torch.int32, device=device)
        cu_seqlens = torch.zeros(bucket.pairs + 1, dtype=torch.int32, device=device)
        # Of lengths the kernels' launchers read but how many there are.
        self.buffers = PackedBatch(ids, types, places, Spans(cu_seqlens, (0,) * bucket.pairs, bucket.longest))
        self.replay, self.output = capture(lambda: run(self.buffers))

    def logits(self, batch: PackedBatch) -> torch.Tensor:
        """Computes a batch that lies on the device."""
        fill(self.buffers, batch)
        self.replay()
        return self.output[: len(batch.spans.lengths)].clone()


class Graphs:
    """The graphs of one encoder, each made when a batch first needs it. Threads take turns.

    Args:
        run: Computes logits of a batch on the device.
        device: The device.
        width: Numbers of a token's stream.
        capture: Makes a graph.
    """

    def __init__(self, run: Callable[[PackedBatch], torch.Tensor], device: torch.device, width: int, capture: Capture):
        self._run = run
        self._device = device
        self._width = width
        self._capture = capture
        self._graphs: OrderedDict[Bucket, Graph] = OrderedDict()
        self._lock = threading.Lock()

    def logits(self, batch: PackedBatch) -> torch.Tensor:
        """Computes a batch that lies on the host: a small one by a graph, a large one kernel by kernel."""
        there = to_device(batch, self._device)
        bucket = bucket_of(batch.spans)
        if bucket.tokens * self._width > MOST_NUMBERS:
            return self._run(there)
        with self._lock:
            if bucket not in self._graphs:
                while len(self._graphs) >= MOST_GRAPHS:
                    self._graphs.popitem(last=False)
                self._graphs[bucket] = Graph(bucket, self._run, self._device, self._capture)
            self._graphs.move_to_end(bucket)
            return self._graphs[bucket].logits(there)


class CudaCapture:
    """Makes CUDA graphs on the current device, which share memory in between: they run one after the other."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[Replay, torch.Tensor]:
        """See `Capture`."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function()  # kernels are compiled, tables made
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # others may allocate
            output = function()
        return graph.replay, output
