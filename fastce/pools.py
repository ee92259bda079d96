"""Pools of processes that score for one model, on one device each: `pool`, `chunk_size` and lists of devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from fastce.checks import check_positive, describe
from fastce.corpus.scorer import ScoringOptions, Task
from fastce.corpus.workers import Assignment, RemoteScorer
from fastce.environment import check_device
from fastce.pipeline import BatchLimits, Window
from fastce.threads import usable_cpus

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

MOST_PAIRS = 5000
"""Pairs of a chunk at most, unless somebody says otherwise."""

CHUNKS = 10
"""Chunks for each process, so that none waits long for the others at the end."""


class Pool:
    """Processes with a copy of a model each, as it was when they were started.

    Safe to share between threads, which take turns. They end with this process, with `close`, and where a `with`
    statement over the pool does.

    Args:
        model: The model.
        devices: Their devices, such as `["cuda:0", "cuda:1"]`; those on CPUs share the CPUs.

    Raises:
        ValueError: There is no such device, or none at all.
        WorkerError: A process could not load the model.
    """

    def __init__(self, model: CrossEncoder, devices: Sequence[str | torch.device]):
        if not devices:
            raise ValueError("device: expected one device at least, got an empty list")
        names = [str(check_device(device)) for device in devices]
        computing = copy(model)
        computing.activation_fn = nn.Identity()  # what becomes of logits is the caller's
        threads = model.pipeline.num_threads or max(1, usable_cpus() // len(names))
        self._scorer = RemoteScorer([Assignment(computing, name) for name in names], ScoringOptions(), threads)
        self._lock = Lock()
        self._num_labels = model.num_labels
        self._num_processes = len(names)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def logits(
        self, window: Window, chunk_size: int | None, limits: BatchLimits, advance: Callable[[int], object]
    ) -> torch.Tensor:
        """Computes logits; see `Pipeline.compute`.

        Args:
            window: The pairs.
            chunk_size: Pairs that a process gets at once; None: a tenth of its share, and `MOST_PAIRS` at most.
            limits: What a batch may hold.
            advance: Told of pairs that are done.

        Returns:
            float32 `[num_pairs, num_labels]`, on the CPU.
        """
        count = len(window.first)
        size = chunk_size or min(MOST_PAIRS, max(1, math.ceil(count / (self._num_processes * CHUNKS))))
        logits = np.empty((count, self._num_labels), dtype=np.float32)
        with self._lock:  # one call has all processes
            for start, scored in self._scorer.stream(tasks(window, size, limits), advance):
                logits[start : start + len(scored.kept)] = scored.scores.reshape(-1, self._num_labels)
        return torch.from_numpy(logits)

    def close(self) -> None:
        """Ends the processes."""
        self._scorer.close()


def tasks(window: Window, size: int, limits: BatchLimits) -> Iterator[tuple[int, Task]]:
    """Chunks of a window, each with the number of its first pair."""
    for start in range(0, len(window.first), size):
        first, second = window.first[start : start + size], window.second[start : start + size]
        yield start, Task(Window(first, second, window.prompt), np.zeros(len(first), dtype=np.int64), limits)


@contextmanager
def chosen_pool(model: CrossEncoder, pool: Any, device: Any, chunk_size: Any) -> Iterator[Pool | None]:
    """The pool that arguments of `predict` ask for, made for this once where they name devices; None for none.

    A single device moves the model.

    Raises:
        TypeError: The pool is none.
        ValueError: A chunk is to have no pairs, or there is no such device.
    """
    if chunk_size is not None:
        check_positive(chunk_size, "chunk_size")
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"pool: expected what start_multi_process_pool gives, got {describe(pool)}")
    if pool is None and isinstance(device, list | tuple):
        with Pool(model, device) as made:
            yield made
        return
    if device is not None and not isinstance(device, list | tuple):
        model.to(device)
    yield pool


class PoolMixin:
    """Adds pools to a model, by the names that sentence-transformers has for them."""

    def start_multi_process_pool(self, target_devices: Sequence[str | torch.device] | None = None) -> Pool:
        """Starts processes that score for this model, as it is now, on one device each.

        Worth it on several GPUs. On CPUs one process uses every core already, and faster.

        Args:
            target_devices: The devices; None: all of CUDA's, or else the CPU, four times.

        Returns:
            What `predict` and `rank` take as `pool`. It ends with `stop_multi_process_pool` or a `with` statement.
        """
        if target_devices is None:
            found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
            target_devices = found or ["cpu"] * 4
        return Pool(cast("CrossEncoder", self), target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: Pool) -> None:
        """Ends the processes of a pool."""
        pool.close()
