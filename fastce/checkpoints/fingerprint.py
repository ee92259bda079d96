"""What tells a file of weights from another that was put in its place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fastce.scoring import is_plain
from fastce.text_tokenizers import digest_of

if TYPE_CHECKING:
    from fastce.checkpoints.checkpoint import Checkpoint
    from fastce.cross_encoder import CrossEncoder

SAMPLE_BYTES = 64
"""Read at the beginning, in the middle and at the end of each tensor: training changes a tensor nearly everywhere."""

SAMPLE_VALUES = 1024
"""Read of each parameter for a digest that lasts."""

NAMES_OF_NO_EFFECT = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
"""Of a config: what computes nothing."""


ANOTHER_PLACE = (-1, -1, -1)
"""The status of a file for another process, which looks at what is in it: it may have a copy."""


@dataclass(frozen=True)
class Fingerprint:
    """A safetensors file as it was at one moment.

    Attributes:
        path: The file.
        status: Its inode, size and time of change.
        digest: Of its header and of samples of each tensor, for copies and other machines.
    """

    path: str
    status: tuple[int, int, int]
    digest: bytes

    @classmethod
    def of(cls, path: str) -> Fingerprint:
        """Takes the fingerprint of a file that safetensors can read.

        Raises:
            OSError: It can't be read.
        """
        with open(path, "rb") as file:
            digest = hashlib.blake2b(digest_size=16)
            for part in telling_parts(file.fileno()):
                digest.update(part)
            return cls(path, status_of(os.fstat(file.fileno())), digest.digest())

    def __reduce__(self) -> tuple[Any, ...]:
        return Fingerprint, (self.path, ANOTHER_PLACE, self.digest)

    def check(self) -> None:
        """Raises RuntimeError, naming the file, where it is gone or holds something else."""
        try:
            if status_of(os.stat(self.path)) == self.status or Fingerprint.of(self.path).digest == self.digest:
                return
            change = "has changed"
        except FileNotFoundError:
            change = "is gone"
        except (OSError, ValueError) as error:
            change = f"has changed and can't be read any more ({error})"
        raise RuntimeError(f"{self.path} {change} since the model was loaded; load it again")


def status_of(status: os.stat_result) -> tuple[int, int, int]:
    """What differs when a file has been replaced or written to."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def telling_parts(file: int) -> Iterator[bytes]:
    """A safetensors file's header, and samples of its tensors."""
    size = int.from_bytes(os.pread(file, 8, 0), "little")
    header = os.pread(file, min(size, os.fstat(file).st_size), 8)
    yield header
    for tensor in json.loads(header).values():
        if "data_offsets" in tensor:
            begin, end = tensor["data_offsets"]
            for at in (begin, (begin + end) // 2, max(begin, end - SAMPLE_BYTES)):
                yield os.pread(file, min(SAMPLE_BYTES, end - begin), 8 + size + at)


def scoring_facts(model: CrossEncoder) -> dict[str, Any]:
    """What the scores of a model depend on, by name, beside the machine."""
    pipeline = model.pipeline
    return {
        "model": model_digest(pipeline.checkpoint),
        "tokenizer": pipeline.pair_tokenizer.pair_digest(),
        "precision": pipeline.precision,
        "deterministic": pipeline.deterministic,
        "max_length": model.max_length,
        "prompt": model.prompt_of(None, None),
        "activation": function_facts(model.activation_fn),
    }


def function_facts(function: Any) -> str:
    """What tells an activation function from others: its parameters and attributes, or its code and what that holds.

    What can't be told differs from itself in another process: an object that shows its address alone.
    """
    if is_plain(function):
        return repr(function)
    kind = type(function)
    if isinstance(function, torch.nn.Module):
        parts = [(name, type(part).__qualname__, public(part)) for name, part in function.named_modules()]
        weights = [(name, tensor.tolist()) for name, tensor in function.state_dict().items()]
        return f"{kind.__module__}.{kind.__qualname__} {digest_of(parts, weights)}"
    code = getattr(function, "__code__", None)
    if code is None:
        return repr(function)
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    owner = getattr(function, "__self__", None)
    defaults = function.__defaults__, function.__kwdefaults__
    told = digest_of(code.co_code, code.co_consts, code.co_names, held, defaults, owner)
    return f"{function.__module__}.{function.__qualname__} {told}"


def public(part: torch.nn.Module) -> dict[str, str]:
    """The attributes of a module that have no underscore before them, as they show themselves."""
    return {name: repr(value) for name, value in vars(part).items() if not name.startswith("_")}


def model_digest(checkpoint: Checkpoint) -> str:
    """Differs where a model gives other logits, but for its tokenizer, in hexadecimal digits.

    Of each parameter some evenly spread values are read: what changes a parameter nearly everywhere is noticed.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = {name: value for name, value in checkpoint.config.to_dict().items() if name not in NAMES_OF_NO_EFFECT}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    understood = checkpoint.network(with_module=False).understood
    if isinstance(understood, str):  # why it is not
        weights = dict(checkpoint.module.named_parameters())
    else:
        weights = {name: stored.tensor for name, stored in understood.weights.items()}
    for name in sorted(weights):
        flat = weights[name].detach().reshape(-1)
        digest.update(name.encode())
        digest.update(flat[:: max(1, len(flat) // SAMPLE_VALUES)].float().cpu().numpy().tobytes())
    return digest.hexdigest()
