"""Language models as rerankers, with the real vocabulary of Qwen, against sentence-transformers and transformers."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_models import TEMPLATE, save_language_model
from safetensors.torch import load_file, save_file
from tiny_models import PAIRS
from tolerance import GRADIENT, LOGITS, close_to
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from fastce import CrossEncoder, InputExample
from fastce.backends.base import Request, load_backend
from fastce.checkpoints.network import network_of
from fastce.packing import pack
from fastce.templates import TemplateTokenizer

STRUCTURED = TEMPLATE.replace("message.content }}", "message.content[0].text }}").replace(
    "= message.content -%}", "= message.content[0].text -%}"
)
LONG = ("How long does it take? " * 9, "Bread needs flour, water, salt and a little patience. " * 30)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With a chat template; the head is the embeddings."""
    return save_language_model(tmp_path_factory.mktemp("language_model"))


def logits(model: CrossEncoder, pairs: list[tuple[str, str]], **options: Any) -> torch.Tensor:
    """Without the activation function."""
    found: torch.Tensor = model.predict(pairs, activation_fn=nn.Identity(), convert_to_tensor=True, **options)
    return found


def reference(folder: str, **options: Any) -> Any:
    """sentence-transformers' own."""
    from sentence_transformers import CrossEncoder as Reference

    return Reference(folder, device="cpu", model_kwargs={"dtype": torch.float32}, **options)


def reference_logits(model: Any, pairs: list[tuple[str, str]], **options: Any) -> torch.Tensor:
    found: torch.Tensor = model.predict(pairs, activation_fn=nn.Identity(), convert_to_tensor=True, **options)
    return found


@pytest.mark.parametrize("backend", ["cpp", "reference", "transformers"])
def test_scores_equal_sentence_transformers(language_model: str, backend: str) -> None:
    model, theirs = CrossEncoder(language_model, backend=backend), reference(language_model)
    assert model.backend == backend
    assert isinstance(model.activation_fn, nn.Sigmoid)
    assert model.max_length == 300
    expected = reference_logits(theirs, PAIRS)
    assert expected.std() > 0.1
    assert close_to(logits(model, PAIRS), expected, LOGITS)
    assert np.allclose(model.predict(PAIRS[:5]), theirs.predict(PAIRS[:5]), atol=LOGITS)
    if backend != "transformers":
        assert model.pipeline.checkpoint._module is None, "made of the file alone"


@pytest.mark.parametrize(("kind", "changes"), [("qwen2", {}), ("llama", {}), ("qwen3", {"tie_word_embeddings": False})])
def test_other_language_models(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    folder = save_language_model(tmp_path, kind=kind, **changes)
    model = CrossEncoder(folder)
    expected = reference_logits(reference(folder), PAIRS[:20])
    assert model.backend == "cpp"
    assert close_to(logits(model, PAIRS[:20]), expected, LOGITS)
    model.model.double()  # from the module now
    assert close_to(logits(model, PAIRS[:20]), expected, LOGITS)


def test_scores_are_the_difference_of_two_logits(language_model: str) -> None:
    """As transformers alone computes them, a pair at a time."""
    tokenizer: Any = AutoTokenizer.from_pretrained(language_model)
    module: Any = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32).eval()
    expected = []
    for query, document in PAIRS[:10]:
        messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        with torch.inference_mode():
            last = module(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        expected.append(last[tokenizer.convert_tokens_to_ids("yes")] - last[tokenizer.convert_tokens_to_ids("no")])
    assert close_to(logits(CrossEncoder(language_model), PAIRS[:10]), torch.stack(expected), LOGITS)


@pytest.mark.parametrize("template", [TEMPLATE, STRUCTURED, None], ids=["flat", "structured", "none"])
def test_prompts_are_the_instruction(tmp_path: Path, template: str | None) -> None:
    folder = save_language_model(tmp_path, template=template)
    prompts = {"duplicates": "Find questions that ask the same."}
    model, theirs = CrossEncoder(folder, prompts=prompts), reference(folder, prompts=prompts)
    plain = logits(model, PAIRS[:9])
    assert close_to(plain, reference_logits(theirs, PAIRS[:9]), LOGITS)
    for options in ({"prompt_name": "duplicates"}, {"prompt": "Which says the opposite?"}):
        found = logits(model, PAIRS[:9], **options)
        assert (found - plain).abs().max() > 100 * LOGITS
        assert close_to(found, reference_logits(theirs, PAIRS[:9], **options), LOGITS)
    assert [hit["corpus_id"] for hit in model.rank("yes", ["no", "it is", "a man"], prompt="Same language?")] == [
        hit["corpus_id"] for hit in theirs.rank("yes", ["no", "it is", "a man"], prompt="Same language?")
    ]
    model.save(str(tmp_path / "saved"))
    again = CrossEncoder(str(tmp_path / "saved"), default_prompt_name="duplicates")
    assert torch.equal(logits(again, PAIRS[:9]), logits(model, PAIRS[:9], prompt_name="duplicates"))


@pytest.mark.parametrize("max_length", [60, 77, 120, 300])
def test_the_document_is_cut_and_never_the_template(language_model: str, max_length: int) -> None:
    model, theirs = (
        CrossEncoder(language_model, max_length=max_length),
        reference(language_model, max_length=max_length),
    )
    pairs = [LONG, ("yes", "no"), (LONG[1], "no"), ("Where?", LONG[1])]
    found = model.pipeline.pair_tokenizer([pair[0] for pair in pairs], [pair[1] for pair in pairs], max_length)
    ids = found.assemble(np.arange(4))[0]
    expected = [
        row[mask.bool()]
        for row, mask in zip(*(theirs.preprocess(pairs)[k] for k in ("input_ids", "attention_mask")), strict=True)
    ]
    assert ids.tolist() == torch.cat(expected).tolist()
    assert found.lengths.max() == max_length
    text = model.tokenizer.decode(ids[: found.lengths[0]])
    assert text.startswith("<|im_start|>system")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n")
    assert close_to(logits(model, pairs), reference_logits(theirs, pairs), LOGITS)


def test_a_length_without_room_for_a_text(language_model: str) -> None:
    with pytest.raises(ValueError, match=r"max_length: 5 leaves no room beside \d+ tokens of the template's end"):
        CrossEncoder(language_model, max_length=5).predict(PAIRS[:2])


def test_a_template_that_shows_no_document(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path, template="{{ messages[0].content }}<|im_end|>")
    with pytest.raises(ValueError, match="does not show the messages of both roles, query and document"):
        CrossEncoder(folder).predict(PAIRS[:2])


def test_saving_both_ways(language_model: str, tmp_path: Path) -> None:
    model = CrossEncoder(language_model)
    expected = logits(model, PAIRS)
    model.save(str(tmp_path / "ours"))
    theirs = reference(str(tmp_path / "ours"))
    assert close_to(reference_logits(theirs, PAIRS), expected, LOGITS)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for folder in ("ours", "theirs"):
        again = CrossEncoder(str(tmp_path / folder))
        assert torch.equal(logits(again, PAIRS), expected)
        modules = json.loads((tmp_path / folder / "modules.json").read_text())
        assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "LogitScore"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "ours").lm_head.weight.shape == (151700, 24)


def test_other_answers_than_yes_and_no(language_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    CrossEncoder(language_model).save(str(folder))
    config = {"true_token_id": 16, "false_token_id": 15, "module_input_name": "causal_logits"}
    (folder / "1_LogitScore" / "config.json").write_text(json.dumps(config))
    found = logits(CrossEncoder(str(folder)), PAIRS[:9])
    assert close_to(found, reference_logits(reference(str(folder)), PAIRS[:9]), LOGITS)
    assert (found - logits(CrossEncoder(language_model), PAIRS[:9])).abs().max() > 0.1


def test_scores_of_one_token_alone_are_refused(language_model: str, tmp_path: Path) -> None:
    CrossEncoder(language_model).save(str(tmp_path))
    (tmp_path / "1_LogitScore" / "config.json").write_text(json.dumps({"true_token_id": 16, "false_token_id": None}))
    with pytest.raises(ValueError, match=r"1_LogitScore: tokens \[16, None\]; fastce scores by the difference of two"):
        CrossEncoder(str(tmp_path))


def test_language_models_of_other_families_run_their_own_code(tmp_path: Path) -> None:
    """Gemma2 bends its logits: their difference is none of rows of the head."""
    folder = save_language_model(tmp_path, kind="gemma2", final_logit_softcapping=1.5, tie_word_embeddings=True)
    model = CrossEncoder(folder, max_length=300)
    assert model.backend == "transformers"
    expected = reference_logits(reference(folder), PAIRS[:20])
    assert close_to(logits(model, PAIRS[:20]), expected, LOGITS)


def test_options_that_are_not_known_are_refused(language_model: str, tmp_path: Path) -> None:
    CrossEncoder(language_model).save(str(tmp_path))
    file = tmp_path / "sentence_bert_config.json"
    options = {"processing_kwargs": {"chat_template": {"enable_thinking": False}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | options))
    with pytest.raises(ValueError, match=r"processing_kwargs=\{.*\}, which fastce does not run"):
        CrossEncoder(str(tmp_path))


def test_a_missing_head_is_no_fresh_one(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path, kind="qwen2")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: lm_head\.weight"):
        CrossEncoder(folder).predict(PAIRS[:2])


@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_gradients_reach_both_tokens(language_model: str, backend: str) -> None:
    model = CrossEncoder(language_model)
    module = model.model.eval()
    texts = model.pipeline.pair_tokenizer([pair[0] for pair in PAIRS[:6]], [pair[1] for pair in PAIRS[:6]], 300)
    packed = pack(texts, np.arange(6), None)
    request = Request(network_of(module), "fp32", torch.device("cpu"), training=True)
    encoder = load_backend(backend).build_trainable(request)
    encoder.training_logits(packed).sum().backward()
    found = {name: weight.grad.clone() for name, weight in module.named_parameters()}
    module.zero_grad()
    padded = load_backend("transformers").build_trainable(
        Request(network_of(module), "fp32", torch.device("cpu"), training=True)
    )
    padded.tokenizer = model.tokenizer
    padded.training_logits(packed).sum().backward()
    for name, weight in module.named_parameters():
        largest = weight.grad.abs().max().clamp(min=1e-3)
        assert (found[name] - weight.grad).abs().max() <= GRADIENT * largest, name
    assert (found["base.model.embed_tokens.weight"].abs().sum(1) > 0).sum() > 10


def test_training_moves_scores_and_saves(language_model: str, tmp_path: Path) -> None:
    folder = str(shutil.copytree(language_model, tmp_path / "model"))
    model = CrossEncoder(folder)
    examples = [InputExample(texts=list(pair), label=float(len(pair[1]) > 40)) for pair in PAIRS[:32]]
    before = logits(model, PAIRS[:32])
    loader = DataLoader(examples, batch_size=8, shuffle=False, collate_fn=lambda batch: batch)
    model.fit(loader, epochs=4, warmup_steps=0, optimizer_params={"lr": 2e-3}, show_progress_bar=False)
    after = logits(model, PAIRS[:32])
    labels = torch.tensor([example.label for example in examples])
    loss = nn.functional.binary_cross_entropy_with_logits
    assert loss(after, labels) < 0.8 * loss(before, labels)
    model.save(str(tmp_path / "trained"))
    assert close_to(reference_logits(reference(str(tmp_path / "trained")), PAIRS[:32]), after, LOGITS)


def test_the_tokenizer_pickles(language_model: str) -> None:
    tokenizer = CrossEncoder(language_model).pipeline.pair_tokenizer
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert isinstance(copy, TemplateTokenizer)
    assert copy(["a"], ["b"], 100).token_ids.tolist() == tokenizer(["a"], ["b"], 100).token_ids.tolist()
