"""Models that rerank, as frameworks are given them: loaded, or as what they are loaded with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastce.corpus.score import load

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder
    from fastce.options import ModelOptions


def load_reranker(model: CrossEncoder | ModelOptions | str, **options: Any) -> CrossEncoder:
    """The model that somebody means.

    Args:
        model: A model, what it is loaded with, or its directory or Hub id.
        **options: Further arguments of `CrossEncoder`, for a directory or Hub id.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: It has no head, or more than one label, or there are options for a model that has its own.
    """
    if isinstance(model, str):
        from fastce.cross_encoder import CrossEncoder

        model = CrossEncoder(model, **options)
    elif given := [name for name, value in options.items() if value is not None]:
        raise ValueError(f"{', '.join(given)}: only for a model that is given by its name; this one has its own")
    loaded = load(model)
    if loaded.num_labels != 1:
        raise ValueError(f"{name_of(loaded)}: has {loaded.num_labels} labels; a reranker has one")
    return loaded


def together(explicit: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `CrossEncoder` from both; those that are given by themselves, and not None, win."""
    return others | {name: value for name, value in explicit.items() if value is not None}


def name_of(model: CrossEncoder) -> str:
    """The directory or Hub id that a model was loaded from."""
    return str(model.config._name_or_path)
