from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from fastce.inputs import check_positive, check_texts, split_pairs

TWO = (["a", "c"], ["b", "d"], False)


@pytest.mark.parametrize(
    "inputs",
    [
        [("a", "b"), ("c", "d")],
        [["a", "b"], ["c", "d"]],
        (("a", "b"), ("c", "d")),
        np.array([["a", "b"], ["c", "d"]]),
        np.array([["a", "b"], ["c", "d"]], dtype=object),
        zip("ac", "bd", strict=True),
        [np.array(["a", "b"]), np.array(["c", "d"])],
        Dataset.from_dict({"pair": [["a", "b"], ["c", "d"]]})["pair"],
    ],
)
def test_lists_of_pairs(inputs: Any) -> None:
    assert split_pairs(inputs) == TWO


@pytest.mark.parametrize("inputs", [("a", "b"), ["a", "b"], np.array(["a", "b"])])
def test_a_single_pair(inputs: Any) -> None:
    assert split_pairs(inputs) == (["a"], ["b"], True)


@pytest.mark.parametrize("inputs", [[], (), np.array([]), iter(())])
def test_no_pairs(inputs: Any) -> None:
    assert split_pairs(inputs) == ([], [], False)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([("a", "b")] * 17 + [("a", None)], TypeError, r"inputs\[17\]\[1\]: expected str, got None"),
        ([("a", "b"), ("a", 3)], TypeError, r"inputs\[1\]\[1\]: expected str, got int 3"),
        ([(b"a", "b")], TypeError, r"inputs\[0\]\[0\]: expected str, got bytes b'a'"),
        ([("a", "b"), ("a",)], ValueError, r"inputs\[1\]: expected 2 texts, got 1"),
        ([("a", "b"), ("a", "b", "c")], ValueError, r"inputs\[1\]: expected 2 texts, got 3"),
        ([("a", "b"), "ab"], TypeError, r"inputs\[1\]: expected a pair of texts, got str 'ab'"),
        ([None, ("a", "b"), ("a", "b")], TypeError, r"inputs\[0\]: expected a pair of texts, got None"),
        ({"query": "a", "document": "b"}, TypeError, r"inputs: expected a pair .* got dict"),
        ({"a", "b"}, TypeError, r"inputs: expected a pair .* got set"),
        ([("a", "b"), None], TypeError, r"inputs\[1\]: expected a pair of texts, got None"),
        (("a", "b", "c"), ValueError, r"inputs: expected 2 texts, got 3"),
        ((None, "b"), TypeError, r"inputs\[0\]: expected str, got None"),
        ("ab", TypeError, r"inputs: expected a pair of texts or a list of pairs, got str 'ab'"),
        (b"ab", TypeError, r"inputs: expected a pair .* got bytes"),
        (None, TypeError, r"inputs: expected a pair .* got None"),
        (7, TypeError, r"inputs: expected a pair .* got int 7"),
    ],
)
def test_bad_pairs_are_named(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split_pairs(inputs)


@pytest.mark.parametrize("texts", ["ab", None, 3])
def test_documents_must_be_a_list(texts: Any) -> None:
    with pytest.raises(TypeError, match="documents: expected a list of texts"):
        check_texts(texts, "documents")


def test_documents_must_be_texts() -> None:
    with pytest.raises(TypeError, match=r"documents\[1\]: expected str, got float nan"):
        check_texts(["a", float("nan")], "documents")


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_positive_numbers(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"batch_size: expected a positive whole number, got .*{value}"):
        check_positive(value, "batch_size")
    assert check_positive(np.int64(3), "batch_size") == 3
