"""Small models of the newer families, trained from nothing on STS-B, scored in each precision.

python benchmarks/end_to_end/bench_small_models.py --data FOLDER --tokenizer FOLDER

The folder has stsb_train.tsv.gz and stsb_test.tsv.gz with columns score_0_5, text_a and text_b. What such models learn
is little; what int8 takes away of it is the question.
"""

from __future__ import annotations

import csv
import gzip
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from fastce import CrossEncoder, InputExample
from fastce.spec import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
SIZES: dict[str, Any] = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 576,
    "max_position_embeddings": 130,
    "num_labels": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 32,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "mpnet": {},
    "albert": {"embedding_size": 96},
    "gte": {"type_vocab_size": 2},
    "qwen3": {"num_key_value_heads": 3, "head_dim": 32},
    "qwen2": {"num_key_value_heads": 3},
}


def read(file: Path) -> list[InputExample]:
    """Pairs with a score from 0 to 1."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [InputExample(texts=[row["text_a"], row["text_b"]], label=float(row["score_0_5"]) / 5.0) for row in rows]


def train(family: str, tokenizer: str, examples: Any, epochs: int, folder: Path) -> CrossEncoder:
    """A model from nothing."""
    torch.manual_seed(0)
    words: Any = AutoTokenizer.from_pretrained(tokenizer)
    config = AutoConfig.for_model(
        family, **SIZES | FAMILIES[family], vocab_size=len(words), pad_token_id=words.pad_token_id
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    words.model_max_length = 128
    words.save_pretrained(folder)
    model = CrossEncoder(str(folder))
    loader: Any = DataLoader(examples, batch_size=32, shuffle=True, collate_fn=list)
    model.fit(loader, epochs=epochs, warmup_steps=100, optimizer_params={"lr": 5e-4}, show_progress_bar=False)
    return model


def main(
    data: Annotated[Path, typer.Option("--data", exists=True, file_okay=False)],
    tokenizer: Annotated[str, typer.Option("--tokenizer")],
    epochs: Annotated[int, typer.Option("--epochs")] = 4,
) -> None:
    """Print a row for each family."""
    training, test = (read(data / f"stsb_{part}.tsv.gz") for part in ("train", "test"))
    pairs, labels = [example.texts for example in test], [example.label for example in test]
    typer.echo("| family | " + " | ".join(PRECISIONS) + " | bf16 against fp32 | int8 against fp32 |")
    typer.echo("|---" * 6 + "|")
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            train(family, tokenizer, training, epochs, Path(folder)).save(folder)
            logits = {
                precision: CrossEncoder(folder, precision=precision).predict(pairs, activation_fn=nn.Identity())
                for precision in PRECISIONS
            }
        scores = [100 * spearmanr(logits[precision], labels).statistic for precision in PRECISIONS]
        against = [spearmanr(logits[precision], logits["fp32"]).statistic for precision in PRECISIONS[1:]]
        cells = [*(f"{score:.2f}" for score in scores), *(f"{agreement:.5f}" for agreement in against)]
        typer.echo(f"| {family} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    typer.run(main)
