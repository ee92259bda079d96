"""PyTerrier: a transformer that reranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyterrier as pt

from fastce.integrations.models import load_reranker

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder
    from fastce.options import ModelOptions


class FastceReranker(pt.Transformer):
    """Scores and ranks the documents of a frame of results.

        pipeline = retriever % 100 >> pt.text.get_text(index, "text") >> FastceReranker("a/model")

    Args:
        model: A model with one label, what it is loaded with, or its directory or Hub id.
        text_field: The column with the documents' texts.
    """

    def __init__(self, model: CrossEncoder | ModelOptions | str, *, text_field: str = "text"):
        self.model = load_reranker(model)
        self.text_field = text_field

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Scores and ranks.

        Args:
            inp: Columns `qid`, `query`, `docno` and that of the texts.

        Returns:
            The same with `score`, as `CrossEncoder.predict` gives it, and `rank`.
        """
        pt.validate.columns(inp, includes=["qid", "query", "docno", self.text_field], context=self)
        scores = self.model.predict(list(zip(inp["query"], inp[self.text_field], strict=True)))
        return pt.model.add_ranks(inp.assign(score=scores.astype("float64")))
