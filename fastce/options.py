"""How a model is loaded: what the command line, the benchmarks and worker processes hand around in place of a model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from fastce.spec import Precision

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class ModelOptions:
    """Arguments of `CrossEncoder`, as data: small to pickle, cheap to make, checked when the model is loaded.

    Attributes:
        model_name_or_path: A directory with a saved model, or the id of one on the Hugging Face Hub.
        num_labels: See `CrossEncoder`, as for all that follow.
        max_length: Tokens of a pair at most.
        device: Where to run.
        trust_remote_code: Whether a model may bring Python code of its own.
        revision: Branch, tag or commit on the Hub.
        local_files_only: Whether to stay off the network.
        default_prompt_name: The prompt to use.
        backend: Name of a backend, or `"auto"`.
        precision: The arithmetic of scoring.
        num_threads: CPU threads for scoring.
        deterministic: Whether scores are the same bits in every batch.
    """

    model_name_or_path: str
    num_labels: int | None = None
    max_length: int | None = None
    device: str | None = None
    trust_remote_code: bool = False
    revision: str | None = None
    local_files_only: bool = False
    default_prompt_name: str | None = None
    backend: str = "auto"
    precision: Precision = "fp32"
    num_threads: int | None = None
    deterministic: bool = False

    def load(self, **others: Any) -> CrossEncoder:
        """Loads the model.

        Args:
            **others: Further arguments of `CrossEncoder`, those that are no data, such as `activation_fn`.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: The model's files are broken, or an option is none; the message says which and why.
        """
        from fastce.cross_encoder import CrossEncoder

        return CrossEncoder(**{field.name: getattr(self, field.name) for field in fields(self)}, **others)
