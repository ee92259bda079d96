from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from sentence_transformers import CrossEncoderModelCardData
from tiny_models import PAIRS
from torch.utils.data import DataLoader

from fastce import CrossEncoder, InputExample
from fastce.model_card import MARK, ModelCardData

Tiny = Callable[..., str]


def test_a_card_says_how_the_model_was_trained(tiny: Tiny, tmp_path: Path) -> None:
    given = CrossEncoderModelCardData(
        language="en", license="apache-2.0", model_name="Guitars and bread", tags=["music"]
    )
    model = CrossEncoder(tiny("bert"), model_card_data=given)
    examples = [InputExample(texts=list(pair), label=float(at % 2)) for at, pair in enumerate(PAIRS[:16])]
    model.fit(
        DataLoader(examples, batch_size=8),  # type: ignore[arg-type]
        evaluator=lambda *_, **__: 0.25,
        epochs=2,
        optimizer_params={"lr": 3e-4},
        warmup_steps=1,
        output_path=tmp_path,
        show_progress_bar=False,
        seed=5,
    )
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert (card.data.language, card.data.license, card.data.pipeline_tag) == (["en"], "apache-2.0", "text-ranking")
    assert {"cross-encoder", "music"} <= set(card.data.tags)
    assert "# Guitars and bread" in card.text
    for row in (
        "| epochs | 2 |",
        "| steps | 4 |",
        "| learning rate | 0.0003 |",
        "| seed | 5 |",
        "| function | 0.2500 |",
    ):
        assert row in card.text
    assert str(tmp_path) not in card.content
    assert tiny("bert") not in card.content


def test_its_code_loads_the_model(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert", num_labels=3))
    model.save(tmp_path, model_name="three labels", train_datasets=["mine"])
    text = (tmp_path / "README.md").read_text()
    assert "logits of 3 labels (LABEL_0, LABEL_1, LABEL_2)" in text
    assert "| datasets | mine |" in text
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    expected = model.predict(("How long does bread take?", "Bread takes three hours."))
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block.replace("path/to/this/model", str(tmp_path)), names)
        scores = names["scores"][0] if "scores" in names else names["logits"][0].numpy()
        assert np.allclose(scores, expected, atol=1e-5)


def test_a_card_of_somebody_elses_stays(tiny: Tiny, tmp_path: Path) -> None:
    model, readme = CrossEncoder(tiny("bert")), tmp_path / "README.md"
    readme.write_text("mine")
    model.save(tmp_path)
    model._create_model_card(tmp_path)
    assert readme.read_text() == "mine"
    readme.write_text(f"{MARK} of an earlier model")
    model.save(tmp_path)
    assert "earlier" not in readme.read_text()


def test_what_a_trainer_says() -> None:
    data = ModelCardData.of(SimpleNamespace(base_model="org/base", unknown=1))
    data.set_license("mit")
    data.add_tags("one")
    data.add_tags(["one", "two"])
    data.set_losses(["a loss"])
    assert data.extract_dataset_metadata(dataset=[]) is None
    assert (data.license, data.tags, data.base_model) == ("mit", ["one", "two"], "org/base")
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = data.colour
