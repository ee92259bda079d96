"""What `fit(seed=)` covers, and what a fresh head needs besides."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_runs import FAST, loader, one_thread
from transformers import AutoModel, AutoTokenizer, set_seed

from fastce import CrossEncoder

Tiny = Callable[..., str]
__all__ = ["one_thread"]
pytestmark = pytest.mark.usefixtures("one_thread")


def digest_after(directory: str, seed_of_head: int) -> str:
    """A digest of the weights of a base model with a fresh head, after a short training with dropout and shuffling."""
    set_seed(seed_of_head)
    model = CrossEncoder(directory)
    model.fit(loader(8), seed=3, **FAST)
    digest = hashlib.sha256()
    for name, weight in sorted(model.model.state_dict().items()):
        digest.update(name.encode() + weight.numpy().tobytes())
    return digest.hexdigest()


def test_two_processes_learn_the_same_bits(tiny: Tiny, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    torch.rand(7)  # this process has drawn numbers before, the other one has not
    here = digest_after(str(tmp_path), seed_of_head=3)
    program = f"import test_seed, torch; torch.set_num_threads(1); print(test_seed.digest_after({str(tmp_path)!r}, 3))"
    folders = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, Path(__file__).parents[1]))
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([folders, *filter(None, sys.path)])}
    found = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == here
    assert digest_after(str(tmp_path), seed_of_head=4) != here, "fit's seed does not reach the head, as documented"
