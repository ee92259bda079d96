from __future__ import annotations

import numpy as np
import pytest

from fastce.bench.checks import check_scores
from fastce.spec import Precision

REFERENCE = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)


def test_equal_scores_pass() -> None:
    verdict = check_scores(REFERENCE, REFERENCE, "fp32")
    assert (verdict.problem, verdict.largest_difference) == ("", 0.0)
    assert verdict.spearman == pytest.approx(1.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_wrong_scores_are_refused(precision: Precision) -> None:
    not_finite = REFERENCE.copy()
    not_finite[7, 1] = np.nan
    swapped = REFERENCE[::-1]
    constant = np.full_like(REFERENCE, 0.5)
    one_label_wrong = np.stack([REFERENCE[:, 0], -REFERENCE[:, 1]], axis=1)
    for scores, message in (
        (REFERENCE[:-1], r"scores of shape \(49, 2\), expected \(50, 2\)"),
        (not_finite, "1 scores are not finite"),
        (swapped, "scores differ|Spearman"),
        (constant, "scores differ|Spearman 0.0000"),
        (one_label_wrong, "scores differ|Spearman -1.0000"),
    ):
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(check_scores(scores, REFERENCE, precision).problem)


def test_differences_are_held_against_fp32_only() -> None:
    moved = REFERENCE + 0.002
    assert "differ from fp32 by 0.002, more than 0.001" in check_scores(moved, REFERENCE, "fp32").problem
    assert check_scores(moved, REFERENCE, "int8").problem == ""


def test_nothing_to_rank() -> None:
    constant = np.zeros((1, 1), dtype=np.float32)
    verdict = check_scores(constant, constant, "fp32")
    assert (verdict.problem, verdict.spearman) == ("", None)
