"""Labels and logits that a loss of rankings has to do with."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

LABELS: dict[str, list[list[float]]] = {
    "ragged": [[3, 0, 1], [0, 2], [1], [2, 2, 0, 1, 3]],
    "equal lengths": [[3, 0, 1, 2], [0, 0, 1, 0]],
    "all equal": [[1, 1, 1], [0, 0], [2, 2, 2, 2]],
    "single documents": [[1], [0], [3]],
    "continuous, negative too": [[0.95, 0.1, -0.4, -0.5], [0.2, 0.7], [-1.0, 0.0, 2.5]],
    "one query": [[0, 1, 0, 0, 2, 0, 1]],
}

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "apart": lambda logits: 3 * logits,
    "ties": lambda logits: logits.round(),
    "equal": lambda logits: 0 * logits + 0.5,
    "far apart": lambda logits: 1e4 * logits,
}
