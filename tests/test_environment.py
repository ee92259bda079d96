from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PAIRS, make_tokenizer

from fastce import CrossEncoder, available_backends
from fastce.environment import cpp_facts
from fastce.threads import torch_threads

Tiny = Callable[..., str]


def test_torch_threads_are_set_back() -> None:
    def fail() -> None:
        with torch_threads(1):
            assert torch.get_num_threads() == 1
            raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.get_num_threads() == before


def test_overlapping_numbers_of_threads_are_set_back_at_last() -> None:
    before = torch.get_num_threads()
    first, second = torch_threads(1), torch_threads(3)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == before


def test_the_cpp_module_tells_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastce._core", reason="the C++ module was not built")
    monkeypatch.setenv("FASTCE_ISA", "scalar")
    assert cpp_facts()["ISA level"].startswith("scalar of scalar")


def test_another_tokenizer_can_be_put_in(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    model.tokenizer = make_tokenizer("roberta")
    changed = model.predict(PAIRS[:4])
    assert (changed != CrossEncoder(tiny("bert")).predict(PAIRS[:4])).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{"precision": "int8"}, {"backend": "reference"}, {"backend": "transformers"}])
def test_the_default_dtype_of_torch_changes_nothing(tiny: Tiny, options: Any, dtype: torch.dtype) -> None:
    expected = CrossEncoder(tiny("bert"), **options).predict(PAIRS[:20])
    torch.set_default_dtype(dtype)
    try:
        scores = CrossEncoder(tiny("bert"), **options).predict(PAIRS[:20])
    finally:
        torch.set_default_dtype(torch.float32)
    assert scores.dtype == np.float32
    assert np.array_equal(scores, expected)


@pytest.mark.parametrize("name", ["bfloat16", torch.bfloat16])
def test_precisions_by_names_of_torch(tiny: Tiny, name: Any) -> None:
    named = CrossEncoder(tiny("bert"), precision=name)
    assert named.pipeline.precision == "bf16"
    assert np.array_equal(named.predict(PAIRS[:20]), CrossEncoder(tiny("bert"), precision="bf16").predict(PAIRS[:20]))
    assert available_backends(precision=name) == available_backends(precision="bf16")
