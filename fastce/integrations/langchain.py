"""LangChain: a cross-encoder for `CrossEncoderReranker`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from langchain_core.cross_encoders import BaseCrossEncoder

from fastce.integrations.models import load_reranker

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder
    from fastce.options import ModelOptions


class FastceCrossEncoder(BaseCrossEncoder):
    """Scores pairs for LangChain.

        CrossEncoderReranker(model=FastceCrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2"), top_n=3)

    Args:
        model: A model with one label, what it is loaded with, or its directory or Hub id.
    """

    def __init__(self, model: CrossEncoder | ModelOptions | str):
        self.model = load_reranker(model)

    def score(self, text_pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The scores of pairs of texts, as `CrossEncoder.predict` gives them."""
        scores: list[float] = np.atleast_1d(self.model.predict(text_pairs)).tolist()  # also of a single pair
        return scores
