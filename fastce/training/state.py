"""What a training run needs to go on where it was stopped."""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_model

from fastce.checkpoints.adapters import adapter_state, has_adapters
from fastce.training.model import TrainableModel

T = TypeVar("T")

STATE_FILE = "training_state.pt"
PREFIX = "checkpoint-"


def random_state(generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """The state of the generators of Python, NumPy and PyTorch, and of further ones."""
    numpy_name, numpy_keys, *numpy_rest = np.random.get_state(legacy=True)  # noqa: NPY002 - what samplers may use
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (numpy_name, torch.from_numpy(np.asarray(numpy_keys).astype(np.int64)), *numpy_rest),
        "torch": torch.get_rng_state(),
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any], generators: Sequence[torch.Generator] = ()) -> None:
    """Sets the generators to a state from `random_state`."""
    for generator, kept in zip(generators, state["generators"], strict=True):
        generator.set_state(kept)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - as above
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class RandomStream:
    """A sequence of random numbers of its own: in a `with` statement, all generators go on from where it was left.

    Args:
        state: Where it begins, from `random_state`.
    """

    def __init__(self, state: dict[str, Any]):
        self._inside = self._outside = state | {"generators": []}

    def __enter__(self) -> None:
        self._outside = random_state()
        set_random_state(self._inside)

    def __exit__(self, *error: object) -> None:
        self._inside = random_state()
        set_random_state(self._outside)

    def items(self, iterable: Iterable[T]) -> Iterator[T]:
        """Iterates; what that draws, it draws from the stream."""
        with self:
            iterator = iter(iterable)
        while True:
            with self:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


def save_state(model: TrainableModel, folder: Path, step: int, total_limit: int, state: dict[str, Any]) -> None:
    """Saves the model and the state as `checkpoint-<step>`; the folder appears when it is whole.

    Args:
        model: The model.
        folder: The folder of all checkpoints.
        step: Steps since the beginning.
        total_limit: How many checkpoints to keep, the latest ones; 0 keeps all.
        state: What to keep beside the model, as tensors, numbers, texts and containers of these.
    """
    target = folder / f"{PREFIX}{step}"
    unfinished = folder / f".{target.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save(unfinished)
    # With adapters, what was saved is the sum of weights that are trained apart.
    weights = model.model.state_dict() if has_adapters(model.model) else None
    torch.save(state | {"adapters": adapters_of(model), "weights": weights}, unfinished / STATE_FILE)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    if total_limit > 0:
        earlier = [path for path in checkpoints(folder) if step_of(path) <= step]
        for old in earlier[:-total_limit]:
            shutil.rmtree(old)


def load_state(folder: Path) -> dict[str, Any]:
    """Loads a checkpoint's state.

    Raises:
        FileNotFoundError: The folder is no checkpoint.
        ValueError: The file is broken.
    """
    file = folder / STATE_FILE
    if not file.exists():
        problem = f"has no {STATE_FILE}" if folder.is_dir() else "is no folder"
        inside = [path.name for path in checkpoints(folder)]
        hint = f"; in it are {', '.join(inside)}" if inside else ""
        raise FileNotFoundError(f"resume_from_checkpoint: {folder} {problem}{hint}")
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"resume_from_checkpoint: {file} is broken") from error
    return state


def load_weights(model: TrainableModel, folder: Path, state: dict[str, Any]) -> None:
    """Loads a checkpoint's weights into the model, in place.

    Raises:
        ValueError: The model has other adapters than the checkpoint's; its weights are as before.
    """
    if adapters_of(model) != state["adapters"]:
        raise ValueError(f"resume_from_checkpoint: {folder} is of a model with other adapters, or with none")
    if state["weights"] is None:
        load_model(model.model, folder / "model.safetensors")
    else:
        model.model.load_state_dict(state["weights"])


def adapters_of(model: TrainableModel) -> list[Any]:
    """What the adapters are: their parameters' names and shapes, and which ones compute how."""
    if not has_adapters(model.model):
        return []
    shapes = [(name, list(weight.shape)) for name, weight in model.model.state_dict().items()]
    return [shapes, adapter_state(model.model)]


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdecimal()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Steps before a checkpoint."""
    return int(checkpoint.name[len(PREFIX) :])


def resume_folder(resume: bool | Path, folder: Path | None) -> Path | None:
    """The checkpoint to go on from; None where there is none yet or none is wanted.

    Args:
        resume: A checkpoint's folder, or True for the latest one, or False for none.
        folder: The folder of all checkpoints.

    Raises:
        ValueError: The latest one is wanted but nobody says where checkpoints are.
    """
    if not isinstance(resume, bool):
        return resume
    if not resume:
        return None
    if folder is None:
        raise ValueError("resume_from_checkpoint: True needs a checkpoint_path")
    return next(reversed(checkpoints(folder)), None)
