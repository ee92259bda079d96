"""What peers with a model format of their own share: tokens, batches in order of length, the search for settings."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastce.bench.systems.base import Pair, Task
from fastce.bench.timing import repeat_for

Inputs = dict[str, np.ndarray]
"""A padded batch: `input_ids`, `attention_mask` and perhaps `token_type_ids`, int64 `[batch_size, max_seqlen]`."""

Engine = Callable[[Iterable[Inputs]], list[np.ndarray]]
"""Runs batches, several at once where it has several workers, to logits `[batch_size, num_labels]` of each."""

TUNING_PAIRS = 64
TUNING_SECONDS = 0.5
BATCH_SIZES = (8, 16, 32)


@dataclass(frozen=True)
class Settings:
    """How an engine runs.

    Attributes:
        workers: Batches that run at once.
        threads: Cores for each of them.
        batch_size: Pairs of a batch.
        variant: What else a system has to choose.
    """

    workers: int
    threads: int
    batch_size: int
    variant: str = ""

    def __str__(self) -> str:
        words = f"{self.workers} x {self.threads} threads, batches of {self.batch_size}"
        return f"{words}, {self.variant}" if self.variant else words


class PairEncoder:
    """The tokenizers library with transformers' truncation, without transformers: fast, and little memory."""

    def __init__(self, folder: Path, max_length: int):
        from tokenizers import Tokenizer

        facts = json.loads((folder / "tokenizer_facts.json").read_text())
        self.padding: dict[str, int] = {"input_ids": facts["pad_token_id"], "attention_mask": 0}
        if facts["has_token_types"]:
            self.padding["token_type_ids"] = 0
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)

    @staticmethod
    def save(model: str, folder: Path) -> None:
        """Writes what an encoder needs of a model's tokenizer."""
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        has_token_types = "token_type_ids" in tokenizer.model_input_names
        facts = {"pad_token_id": tokenizer.pad_token_id, "has_token_types": has_token_types}
        (folder / "tokenizer_facts.json").write_text(json.dumps(facts))

    def encode(self, pairs: Sequence[Pair]) -> list[Any]:
        """Tokenises pairs on all cores."""
        return self.tokenizer.encode_batch_fast(list(pairs))

    def pad(self, encodings: Sequence[Any]) -> Inputs:
        """Lays encodings into arrays as wide as the longest."""
        width = max(len(encoding) for encoding in encodings)
        inputs = {
            name: np.full((len(encodings), width), filling, dtype=np.int64) for name, filling in self.padding.items()
        }
        for row, encoding in enumerate(encodings):
            size = len(encoding)
            inputs["input_ids"][row, :size] = encoding.ids
            inputs["attention_mask"][row, :size] = 1
            if "token_type_ids" in inputs:
                inputs["token_type_ids"][row, :size] = encoding.type_ids
        return inputs


class ConvertedSystem(ABC):
    """A system that converts the model first. A peer says how, and which settings are worth a try."""

    @abstractmethod
    def convert(self, task: Task, encoder: PairEncoder) -> None:
        """Writes the model in the peer's format into `task.folder`."""

    @abstractmethod
    def variants(self, task: Task) -> Sequence[str]:
        """Choices that are the peer's own, best guess first."""

    @abstractmethod
    def open(self, task: Task, settings: Settings) -> Engine:
        """Loads the converted model."""

    def candidates(self, task: Task) -> list[Settings]:
        """A worker for each core, or one on all cores."""
        shares = dict.fromkeys([(task.threads, 1), (1, task.threads)])
        return [
            Settings(*share, batch_size, variant)
            for variant in self.variants(task)
            for share in shares
            for batch_size in BATCH_SIZES
        ]

    def prepare(self, task: Task) -> None:
        """See `Converter`."""
        PairEncoder.save(task.model, task.folder)
        self.encoder = PairEncoder(task.folder, task.max_length)
        self.convert(task, self.encoder)
        sample = task.sample[:TUNING_PAIRS]
        seconds: dict[Settings, float] = {}
        for settings in self.candidates(task):
            run = partial(self.run, self.open(task, settings), settings, sample)
            seconds[settings] = min(repeat_for(TUNING_SECONDS, run))
        fastest = min(seconds, key=seconds.__getitem__)
        (task.folder / "settings.json").write_text(json.dumps(asdict(fastest)))

    def load(self, task: Task) -> str:
        """See `System`."""
        self.task = task
        self.encoder = PairEncoder(task.folder, task.max_length)
        self.settings = Settings(**json.loads((task.folder / "settings.json").read_text()))
        self.engine = self.open(task, self.settings)
        self.engine_for_few: Engine | None = None
        return str(self.settings)

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See `System`."""
        if len(pairs) >= self.settings.workers:
            return self.run(self.engine, self.settings, pairs)
        # Fewer pairs than workers: all cores on one batch. Loaded late, so that throughput pays no memory for it.
        settings = Settings(1, self.task.threads, self.settings.batch_size, self.settings.variant)
        if self.engine_for_few is None:
            self.engine_for_few = self.open(self.task, settings)
        return self.run(self.engine_for_few, settings, pairs)

    def run(self, engine: Engine, settings: Settings, pairs: Sequence[Pair]) -> np.ndarray:
        """Scores pairs, longest first, in batches that keep all workers busy."""
        encodings = self.encoder.encode(pairs)
        order = np.argsort([-len(encoding) for encoding in encodings], kind="stable")
        size = min(settings.batch_size, -(-len(pairs) // settings.workers))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        outputs = engine(self.encoder.pad([encodings[number] for number in batch]) for batch in batches)
        logits = np.empty((len(pairs), outputs[0].shape[1]), dtype=np.float32)
        logits[order] = np.concatenate(outputs)
        return logits


def in_threads(run: Callable[[Inputs], np.ndarray], workers: int) -> Engine:
    """An engine that calls `run` from as many threads as there are workers."""
    if workers == 1:
        return lambda batches: [run(batch) for batch in batches]
    pool = ThreadPoolExecutor(workers)
    return lambda batches: list(pool.map(run, batches))


def classifier(model: str) -> Any:
    """The Hugging Face module in float32, with attention in plain operations, which converters know best."""
    import torch
    from transformers import AutoModelForSequenceClassification

    module: Any = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=torch.float32, attn_implementation="eager"
    )
    return module.eval()
