"""Every dialect gives the scores of `predict`, bit for bit, in its own shape, and refuses in its own words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from servers import QUERY, TEXTS, served
from starlette.testclient import TestClient

from fastce import CrossEncoder

Tiny = Callable[..., str]
PAIRS = [(QUERY, text) for text in TEXTS]
DOCUMENTS = [{"text": text, "title": text[:5]} for text in TEXTS]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> CrossEncoder:
    return CrossEncoder(tiny("bert"), device="cpu")


@pytest.fixture(scope="module")
def client(tiny: Tiny) -> Iterator[TestClient]:
    with served(tiny("bert"), served_names=("house-reranker",)) as client:
        yield client


@pytest.fixture(scope="module")
def classifier(tiny: Tiny) -> Iterator[TestClient]:
    with served(tiny("bert", num_labels=3)) as client:
        yield client


def post(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def scores_of(results: list[dict[str, Any]], name: str) -> np.ndarray:
    """The scores in the order of the texts, from results that are in the order of the scores."""
    told = [result[name] for result in results]
    assert told == sorted(told, reverse=True)
    scores = np.full(len(results), np.nan, dtype=np.float32)
    scores[[result["index"] for result in results]] = told
    return scores


def probabilities(model: CrossEncoder) -> np.ndarray:
    scores: np.ndarray = model.predict(PAIRS, activation_fn="sigmoid")
    return scores


def logits(model: CrossEncoder) -> np.ndarray:
    scores: np.ndarray = model.predict(PAIRS, activation_fn="identity")
    return scores


RERANKING = {
    "/rerank": ({"texts": TEXTS}, "score", lambda answer: answer),
    "/v1/rerank": ({"documents": TEXTS}, "relevance_score", lambda answer: answer["results"]),
    "/v2/rerank": ({"documents": TEXTS}, "relevance_score", lambda answer: answer["results"]),
}


@pytest.mark.parametrize("path", RERANKING)
def test_rankings_have_the_probabilities_of_predict(client: TestClient, model: CrossEncoder, path: str) -> None:
    body, name, results = RERANKING[path]
    found = scores_of(results(post(client, path, query=QUERY, **body)), name)
    assert found.tobytes() == probabilities(model).tobytes()


RAW = [
    ("/rerank", {"raw_scores": True}),
    ("/v1/rerank", {"raw_scores": True}),
    ("/v1/rerank", {"activation": False}),
    ("/v2/rerank", {"raw_scores": True}),
    ("/v2/rerank", {"use_activation": False}),
]


@pytest.mark.parametrize(("path", "raw"), RAW)
def test_raw_scores_are_logits(client: TestClient, model: CrossEncoder, path: str, raw: dict[str, bool]) -> None:
    body, name, results = RERANKING[path]
    found = scores_of(results(post(client, path, query=QUERY, **body, **raw)), name)
    assert found.tobytes() == logits(model).tobytes()


def test_tei_tells_texts_where_asked(client: TestClient) -> None:
    results = post(client, "/rerank", query=QUERY, texts=TEXTS, return_text=True)
    assert [result["text"] for result in results] == [TEXTS[result["index"]] for result in results]
    assert set(post(client, "/rerank", query=QUERY, texts=TEXTS)[0]) == {"index", "score"}


@pytest.mark.parametrize("inputs", [PAIRS[0], PAIRS[:1], PAIRS], ids=["pair", "batch of one", "batch"])
def test_tei_predicts_pairs(client: TestClient, model: CrossEncoder, inputs: Any) -> None:
    expected = [[{"score": float(score), "label": "LABEL_0"}] for score in probabilities(model)[: len(inputs)]]
    found = post(client, "/predict", inputs=inputs)
    assert found == (expected[0] if inputs is PAIRS[0] else expected)


def test_tei_predicts_labels_best_first(classifier: TestClient, tiny: Tiny) -> None:
    three = CrossEncoder(tiny("bert", num_labels=3), device="cpu")
    expected = three.predict(PAIRS, apply_softmax=True, activation_fn="identity")
    for answer, scores in zip(post(classifier, "/predict", inputs=PAIRS), expected, strict=True):
        assert [each["score"] for each in answer] == sorted(scores.tolist(), reverse=True)
        assert {each["label"]: each["score"] for each in answer} == {
            f"LABEL_{label}": score for label, score in enumerate(scores.tolist())
        }


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/score"])
def test_classes_make_no_ranking(classifier: TestClient, path: str) -> None:
    response = classifier.post(path, json={"query": QUERY, "texts": TEXTS, "documents": TEXTS, "queries": QUERY})
    assert response.status_code == 422
    assert "3 labels" in response.text


def test_documents_may_have_fields(client: TestClient, model: CrossEncoder) -> None:
    found = post(client, "/v1/rerank", query=QUERY, documents=DOCUMENTS, rank_fields=["title", "text"])["results"]
    expected = model.predict(
        [(QUERY, f"{document['title']}\n{document['text']}") for document in DOCUMENTS], activation_fn="sigmoid"
    )
    assert scores_of(found, "relevance_score").tobytes() == expected.tobytes()
    found = post(client, "/v1/rerank", query=QUERY, documents=[DOCUMENTS[0], *TEXTS[1:]])["results"]
    assert scores_of(found, "relevance_score").tobytes() == probabilities(model).tobytes()


def test_v1_speaks_to_clients_of_cohere_jina_and_vllm(client: TestClient, model: CrossEncoder) -> None:
    answer = post(client, "/v1/rerank", query=QUERY, documents=TEXTS, top_n=2, model="house-reranker")
    best = np.argsort(-probabilities(model), kind="stable")[:2].tolist()
    assert [result["index"] for result in answer["results"]] == best
    assert [result["document"] for result in answer["results"]] == [{"text": TEXTS[index]} for index in best]
    assert answer["model"] == "house-reranker"
    assert answer["meta"] == {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}}
    lengths = model.pipeline.tokenize(model._window(PAIRS, None, None)[0], model.max_length).lengths
    assert answer["usage"] == {"prompt_tokens": lengths.sum(), "total_tokens": lengths.sum()}
    without = post(client, "/v1/rerank", query=QUERY, documents=TEXTS, return_documents=False)["results"]
    assert set(without[0]) == {"index", "relevance_score"}


def test_a_field_that_is_null_was_left_out(client: TestClient) -> None:
    body = {"query": QUERY, "documents": TEXTS}
    nulls = dict.fromkeys(["model", "top_n", "return_documents", "rank_fields", "use_activation", "raw_scores"])
    assert post(client, "/v1/rerank", **body, **nulls)["results"] == post(client, "/v1/rerank", **body)["results"]


def test_v2_tells_no_documents(client: TestClient) -> None:
    answer = post(client, "/v2/rerank", query=QUERY, documents=TEXTS, top_n=3)
    assert [set(result) for result in answer["results"]] == [{"index", "relevance_score"}] * 3
    assert answer["meta"]["api_version"] == {"version": "2"}


def test_documents_come_back_as_they_were_sent(client: TestClient) -> None:
    documents = [{"title": TEXTS[0], "id": 7, "tags": [None, {"a": 0.5}]}, TEXTS[1]]
    results = post(client, "/v1/rerank", query=QUERY, documents=documents, rank_fields=["title"])["results"]
    assert {result["index"]: result["document"] for result in results} == {0: documents[0], 1: {"text": TEXTS[1]}}
    results = post(client, "/v2/rerank", query=QUERY, documents=TEXTS[:1], return_documents=True)["results"]
    assert results[0]["document"] == {"text": TEXTS[0]}


def test_texts_that_cannot_be_encoded_are_mended(client: TestClient) -> None:
    """Half of a surrogate pair, as cutting a text within an emoji leaves it, is U+FFFD in scores and in answers."""
    half, whole = "half \ud83d", "half \ufffd"

    def ask(path: str, text: str, **body: Any) -> Any:
        content = json.dumps({"query": text, **body})  # escapes what can't be encoded
        return client.post(path, content=content, headers={"content-type": "application/json"})

    broken = ask("/rerank", half, texts=[half], return_text=True)
    assert broken.json() == post(client, "/rerank", query=whole, texts=[whole], return_text=True)
    documents = [half, {"text": half, half: [{half: half}]}]
    results = ask("/v1/rerank", half, documents=documents).json()["results"]
    expected = [whole, {"text": whole, whole: [{whole: whole}]}]
    assert results == post(client, "/v1/rerank", query=whole, documents=expected)["results"]
    for wrong in ({"model": half}, {"rank_fields": [half]}):
        refused = ask("/v1/rerank", half, documents=[{"text": half}], **wrong)
        assert refused.status_code in (404, 422)
        assert whole in refused.json()["message"]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_vllm_scores_one_text_with_many_and_lists_pair_by_pair(
    client: TestClient, model: CrossEncoder, path: str
) -> None:
    expected = [float(score) for score in probabilities(model)]
    for body in (
        {"text_1": QUERY, "text_2": TEXTS},
        {"queries": [QUERY] * len(TEXTS), "documents": TEXTS},
        {"text_1": [QUERY], "text_2": TEXTS, "truncate_prompt_tokens": -1},
    ):
        answer = post(client, path, **body)
        assert [each["score"] for each in answer["data"]] == expected
        assert [each["index"] for each in answer["data"]] == list(range(len(TEXTS)))
    raw = post(client, path, text_1=QUERY, text_2=TEXTS[0], use_activation=False)
    assert [each["score"] for each in raw["data"]] == [float(logits(model)[0])]


def test_texts_are_cut_unless_the_request_says_otherwise(client: TestClient, model: CrossEncoder) -> None:
    long = " ".join(TEXTS * 10)
    expected = float(model.predict((QUERY, long), activation_fn="sigmoid"))
    assert post(client, "/rerank", query=QUERY, texts=[long])[0]["score"] == expected
    assert post(client, "/rerank", query=QUERY, texts=[long], truncate=True)[0]["score"] == expected
    assert post(client, "/rerank", query=QUERY, texts=TEXTS, truncate=False) == post(
        client, "/rerank", query=QUERY, texts=TEXTS
    )
    refused = client.post("/rerank", json={"query": QUERY, "texts": [*TEXTS, long], "truncate": False})
    assert refused.status_code == 413
    assert refused.json()["error_type"] == "Validation"
    assert f"more than {model.max_length}" in refused.json()["error"]


def test_vllm_clients_may_cut_earlier(client: TestClient, model: CrossEncoder, tiny: Tiny) -> None:
    short = CrossEncoder(tiny("bert"), device="cpu", max_length=14).predict(PAIRS, activation_fn="sigmoid")
    answer = post(client, "/score", text_1=QUERY, text_2=TEXTS, truncate_prompt_tokens=14)
    assert [each["score"] for each in answer["data"]] == short.tolist()
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = post(client, path, query=QUERY, documents=TEXTS, truncate_prompt_tokens=14)
        assert scores_of(answer["results"], "relevance_score").tobytes() == short.tobytes()
    assert short.tolist() != probabilities(model).tolist()


BAD = {
    "no texts": ("/rerank", {"query": QUERY, "texts": []}, "texts"),
    "no query": ("/rerank", {"texts": TEXTS}, "query"),
    "a number": ("/rerank", {"query": QUERY, "texts": ["a", 5]}, "texts.1"),
    "the other side": ("/rerank", {"query": QUERY, "texts": TEXTS, "truncation_direction": "Left"}, "on the right"),
    "a single text": ("/predict", {"inputs": "a"}, "inputs"),
    "three texts": ("/predict", {"inputs": [["a", "b", "c"]]}, "inputs"),
    "no pairs": ("/predict", {"inputs": []}, "inputs: List should have at least 1 item"),
    "no such field": ("/v1/rerank", {"query": QUERY, "documents": [*TEXTS, {"body": "a"}]}, "documents[4]"),
    "a field of null": ("/v1/rerank", {"query": QUERY, "documents": [{"text": None}]}, "documents[0]"),
    "a field of yes": ("/v1/rerank", {"query": QUERY, "documents": [*TEXTS, {"text": True}]}, "bool True"),
    "a field of texts": ("/v1/rerank", {"query": QUERY, "documents": [{"text": ["a", "b"]}]}, "'text'"),
    "a field of a number": (
        "/v1/rerank",
        {"query": QUERY, "documents": [{"text": "a", "year": 5}], "rank_fields": ["text", "year"]},
        "'year'",
    ),
    "another's field": ("/rerank", {"query": QUERY, "texts": TEXTS, "use_activation": False}, "use_activation"),
    "fields of v1": ("/v2/rerank", {"query": QUERY, "documents": TEXTS, "rank_fields": ["text"]}, "rank_fields"),
    "a cut elsewhere": ("/score", {"text_1": "a", "text_2": "b", "truncation_side": "left"}, "truncation_side"),
    "shorter texts": ("/score", {"text_1": "a", "text_2": TEXTS, "max_tokens_per_doc": 3}, "to 3"),
    "both names": ("/score", {"text_1": "a", "queries": "b", "text_2": "c"}, "got both"),
    "less than none": ("/v1/rerank", {"query": QUERY, "documents": TEXTS, "top_n": -1}, "top_n"),
    "shorter documents": ("/v2/rerank", {"query": QUERY, "documents": TEXTS, "max_tokens_per_doc": 3}, "to 3"),
    "too short": ("/score", {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 2}, "special tokens"),
    "uneven lists": ("/score", {"text_1": ["a", "b"], "text_2": TEXTS}, "2 and 4"),
    "half a pair": ("/score", {"text_1": "a"}, "1 and 0"),
    "no object": ("/v1/rerank", [1], "object"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_told_what_is_wrong(client: TestClient, case: str) -> None:
    path, body, named = BAD[case]
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert named in message_of(path, response.json())


def message_of(path: str, body: Any) -> str:
    """What a client of the dialect of this path reads as the message."""
    if path in ("/rerank", "/predict"):
        assert set(body) == {"error", "error_type"}
        return str(body["error"])
    if path == "/score":
        return str(body["error"]["message"])
    assert body["message"] == body["detail"]
    return str(body["detail"])


def test_a_model_is_compared_never_loaded(client: TestClient, tiny: Tiny) -> None:
    folder = tiny("bert")
    for name in (folder, folder.rpartition("/")[2], "house-reranker", "", None):
        assert post(client, "/v2/rerank", model=name, query=QUERY, documents=TEXTS)["model"] == "house-reranker"
    refused = client.post("/v2/rerank", json={"model": "rerank-v3.5", "query": QUERY, "documents": TEXTS})
    assert refused.status_code == 404
    assert "'rerank-v3.5' is not served here, but 'house-reranker'" in refused.json()["message"]


def test_no_number_is_refused_rather_than_told(tiny: Tiny, tmp_path: Any) -> None:
    broken = CrossEncoder(tiny("bert"), device="cpu")
    broken.model.classifier.weight.data.sign_().mul_(3e38)
    broken.save(tmp_path / "broken")
    with served(str(tmp_path / "broken")) as client:
        response = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "raw_scores": True})
    assert response.status_code == 500
    assert response.json()["error_type"] == "Backend"
    assert "no finite number" in response.json()["error"]


def test_logits_rank_where_probabilities_are_all_but_one(tiny: Tiny, tmp_path: Any) -> None:
    sure = CrossEncoder(tiny("bert"), device="cpu")
    sure.model.classifier.bias.data.add_(30.0)
    sure.save(tmp_path / "sure")
    with served(str(tmp_path / "sure")) as client:
        results = post(client, "/rerank", query=QUERY, texts=TEXTS)
    assert {result["score"] for result in results} == {1.0}
    assert [result["index"] for result in results] == np.argsort(-logits(sure), kind="stable").tolist()


def test_info_tells_what_clients_of_tei_ask_for(client: TestClient, classifier: TestClient) -> None:
    found = client.get("/info").json()
    assert found["model_id"] == "house-reranker"
    assert found["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert found["max_client_batch_size"] == 1000
    unnamed = classifier.get("/info").json()
    assert set(unnamed["model_type"]) == {"classifier"}
    assert "/" not in unnamed["model_id"]  # it says not where the folder is


def test_openapi_describes_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/rerank", "/predict", "/v1/rerank", "/v2/rerank", "/score", "/v1/score", "/health", "/metrics", "/info"
    }  # fmt: skip
    assert client.get("/docs").status_code == 200
