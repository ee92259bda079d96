from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import PAIRS, make_tokenizer

from fastce import CrossEncoder
from fastce.settings import cpu_features, torch_threads

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


def test_cpu_features_are_known_where_the_module_is_built() -> None:
    pytest.importorskip("fastce._core", reason="the C++ module was not built")
    assert isinstance(cpu_features(), list)


def test_pool_and_chunk_size_are_accepted_and_said_to_do_nothing(tiny: Tiny) -> None:
    with pytest.warns(UserWarning, match="pool and chunk_size have no effect"):
        CrossEncoder(tiny("bert")).predict(PAIRS[:2], pool={}, chunk_size=5)


def test_another_tokenizer_can_be_put_in(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    model.tokenizer = make_tokenizer("roberta")
    changed = model.predict(PAIRS[:4])
    assert (changed != CrossEncoder(tiny("bert")).predict(PAIRS[:4])).all()
