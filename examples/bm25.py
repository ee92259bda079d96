"""BM25, the usual first stage of a search: documents by the words that they share with a query."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse


class BM25:
    """The first stage: scores documents by the words they share with a query.

    Okapi BM25 after Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009):

        score(q, d) = sum over words w of q: idf(w) * tf / (tf + k1 * (1 - b + b * length(d) / mean length))

    with tf the count of w in d, n(w) the number of documents with w, N that of all, and
    idf(w) = log(1 + (N - n(w) + 0.5) / (n(w) + 0.5)).

    Args:
        documents: The texts to search.
        k1: How soon a repeated word stops counting.
        b: How much long documents are held back, from 0 to 1.
    """

    def __init__(self, documents: Sequence[str], k1: float = 1.5, b: float = 0.75):
        counts = [Counter(words(document)) for document in documents]
        lengths = np.array([count.total() for count in counts])
        vocabulary = sorted(set().union(*counts))
        self.columns = {word: column for column, word in enumerate(vocabulary)}

        row = np.repeat(np.arange(len(counts)), [len(count) for count in counts])
        column = np.array([self.columns[word] for count in counts for word in count])
        frequency = np.array([number for count in counts for number in count.values()])
        containing = np.bincount(column, minlength=len(vocabulary))  # documents with each word
        idf = np.log1p((len(documents) - containing + 0.5) / (containing + 0.5))
        saturation = k1 * (1 - b + b * lengths / lengths.mean())
        weights = idf[column] * frequency / (frequency + saturation[row])
        self.weights = sparse.csc_array((weights, (row, column)), shape=(len(documents), len(vocabulary)))

    def scores(self, query: str) -> np.ndarray:
        """Scores all documents, `[num_documents]`."""
        columns = [self.columns[word] for word in words(query) if word in self.columns]
        return np.asarray(self.weights[:, columns].sum(axis=1))

    def search(self, query: str, top: int) -> list[int]:
        """Positions of the best documents, best first."""
        ranking: list[int] = np.argsort(-self.scores(query), kind="stable")[:top].tolist()
        return ranking


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())
