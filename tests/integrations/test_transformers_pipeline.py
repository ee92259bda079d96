"""transformers' pipeline on a model that fastce has saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tiny_models import PAIRS as ALL_PAIRS
from torch import nn

from fastce import CrossEncoder

pytestmark = pytest.mark.integrations
PAIRS = [pair for pair in ALL_PAIRS[::4] if pair[1]]  # the pipeline takes a pair with an empty second text for one text


@pytest.mark.parametrize("num_labels", [1, 3])
def test_scores_are_equal(tiny: Any, tmp_path: Path, num_labels: int) -> None:
    model = CrossEncoder(tiny("bert", num_labels=num_labels))
    model.save(tmp_path)
    classify = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu", top_k=None)
    found = classify([{"text": first, "text_pair": second} for first, second in PAIRS], truncation=True)
    activation_fn = nn.Sigmoid() if num_labels == 1 else nn.Softmax(dim=-1)
    expected = model.predict(PAIRS, activation_fn=activation_fn).reshape(len(PAIRS), -1)
    names = [model.config.id2label[number] for number in range(num_labels)]
    scores = [{entry["label"]: entry["score"] for entry in labels} for labels in found]
    assert np.abs(np.array([[row[name] for name in names] for row in scores]) - expected).max() < 1e-5
