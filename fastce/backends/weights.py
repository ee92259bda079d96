"""The parameters of a network as the ops take them: whether a matrix is some rows of another or has LoRA stays here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastce.checkpoints.network import Stored
from fastce.spec import Norm


class NormWeights(NamedTuple):
    """A norm and its parameters, each `[size]`."""

    norm: Norm
    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias` over parameters where they lie, live.

    Attributes:
        weight: `[out_features, in_features]`.
        bias: `[out_features]`, or None.
    """

    weight: Stored
    bias: Stored | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Computes `[rows, out_features]` from `[rows, in_features]`, in the dtype of the weight (or of autocast)."""
        return self._product(x, None if self.bias is None else self.bias.tensor)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The same without the bias, for ops that add it themselves."""
        return self._product(x, None)

    def beside(self, others: Sequence[Linear]) -> Linear | None:
        """This layer and others as one, where their parameters lie in one tensor each, one behind the other."""
        parts = [self, *others]
        weight = join([part.weight for part in parts])
        stored = [part.bias for part in parts if part.bias is not None]
        bias = join(stored) if stored else None
        return None if weight is None or (bias is None and stored) else Linear(weight, bias)

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        weight = self.weight.tensor
        if not casts_by_itself(x.device):
            x = x.to(weight.dtype)
        result = F.linear(x, weight, bias)
        for update in self.weight.updates:  # LoRA's matrices, one after the other, never with each other
            up = update.up if self.weight.rows is None else update.up[self.weight.rows]
            inner = F.linear(update.dropout(x), update.down)  # [rows, rank]
            result = torch.addmm(result, inner, up.t(), alpha=update.scaling)
        return result


def casts_by_itself(device: torch.device) -> bool:
    """Whether autocast chooses the dtype of products on a device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def plain_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
    """A linear layer over whole tensors."""
    return Linear(Stored(weight), None if bias is None else Stored(bias))


def products(x: torch.Tensor, parts: Sequence[Linear], *, biases: bool = True) -> list[torch.Tensor]:
    """Several linear layers of one input; those that lie in one tensor one behind the other are one product.

    Args:
        x: `[rows, in_features]`.
        parts: The layers.
        biases: Whether to add their biases.

    Returns:
        A result for each, `[rows, out_features]`, perhaps a view of a wider one.
    """
    whole = parts[0].beside(parts[1:])
    if whole is not None:
        sizes = [part.weight.num_rows for part in parts]
        return list((whole(x) if biases else whole.product(x)).split(sizes, -1))
    return [part(x) if biases else part.product(x) for part in parts]


def join(parts: Sequence[Stored]) -> Stored | None:
    """The rows of all parts as one, where they lie in one tensor one behind the other."""
    first, end = parts[0].whole, 0
    for number, part in enumerate(parts):
        if part.rows is None or part.whole is not first or (number > 0 and part.rows.start != end):
            return None
        end = part.rows.stop
    assert parts[0].rows is not None
    rows = slice(parts[0].rows.start, end)
    return Stored(first, None if rows == slice(0, len(first)) else rows, parts[0].updates)


class Weights:
    """Parameters by name.

    Args:
        stored: fastce's own names to parameters.
    """

    def __init__(self, stored: Mapping[str, Stored]):
        self.stored = stored

    def table(self, name: str) -> torch.Tensor:
        """An embedding table, `[rows, size]`."""
        return self.stored[f"{name}.weight"].tensor

    def linear(self, name: str) -> Linear:
        """A linear layer."""
        return Linear(self.stored[f"{name}.weight"], self.stored.get(f"{name}.bias"))

    def norm(self, kind: Norm | None, name: str) -> NormWeights | None:
        """A norm; None for None."""
        if kind is None:
            return None
        bias = self.stored.get(f"{name}.bias")
        return NormWeights(kind, self.stored[f"{name}.weight"].tensor, None if bias is None else bias.tensor)
