"""Clients that know nothing of fastce get its scores from a real server."""

from __future__ import annotations

import ast
import gc
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from servers import QUERY, TEXTS, listening

from fastce import CrossEncoder

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Some of the clients leave it to chance when their connections are closed."""

Tiny = Callable[..., str]
KEY = "secret"
MODEL = "rerank-v3.5"


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """Closes what clients leave open, while nobody minds."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def address(tiny: Tiny) -> Iterator[str]:
    """Where a server listens."""
    with listening(tiny("bert"), served_names=(MODEL,), api_key=KEY) as address:
        yield address


@pytest.fixture(scope="module")
def expected(tiny: Tiny) -> dict[int, float]:
    """Numbers of the texts to their scores, best first."""
    scores = CrossEncoder(tiny("bert"), device="cpu").predict(
        [(QUERY, text) for text in TEXTS], activation_fn="sigmoid"
    )
    return {int(number): float(scores[number]) for number in np.argsort(-scores, kind="stable")}


def assert_is(found: list[tuple[int, float]], expected: dict[int, float]) -> None:
    """Checks numbers of texts and scores, best first, of which there may be fewer."""
    assert found == list(expected.items())[: len(found)]
    assert len(found) >= 2


def test_the_cohere_sdk(address: str, expected: dict[int, float]) -> None:
    cohere = pytest.importorskip("cohere")
    one = cohere.Client(KEY, base_url=address).rerank(
        query=QUERY, documents=TEXTS, model=MODEL, top_n=3, return_documents=True
    )
    assert_is([(each.index, each.relevance_score) for each in one.results], expected)
    assert [each.document.text for each in one.results] == [TEXTS[each.index] for each in one.results]
    two = cohere.ClientV2(KEY, base_url=address).rerank(query=QUERY, documents=TEXTS, model=MODEL)
    assert_is([(each.index, each.relevance_score) for each in two.results], expected)
    assert two.meta.api_version.version == "2"
    fields = [{"text": text, "title": "no matter"} for text in TEXTS]
    three = cohere.Client(KEY, base_url=address).rerank(query=QUERY, documents=fields, model=MODEL)
    assert_is([(each.index, each.relevance_score) for each in three.results], expected)


def test_the_cohere_sdk_understands_refusals(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2("wrong", base_url=address).rerank(query=QUERY, documents=TEXTS, model=MODEL)
    with pytest.raises(cohere.NotFoundError) as unknown:
        cohere.ClientV2(KEY, base_url=address).rerank(query=QUERY, documents=TEXTS, model="rerank-v2")
    assert "'rerank-v2' is not served here" in unknown.value.body["message"]


def test_the_documentation(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cohere")
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("http://127.0.0.1:8080", address), {})
    assert len(ast.literal_eval(capsys.readouterr().out)) == 2


def haystack_documents() -> list[Any]:
    dataclasses = pytest.importorskip("haystack.dataclasses")
    return [dataclasses.Document(content=text, meta={"number": number}) for number, text in enumerate(TEXTS)]


def of_haystack(documents: list[Any]) -> list[tuple[int, float]]:
    return [(document.meta["number"], document.score) for document in documents]


def test_haystack_and_jina(address: str, expected: dict[int, float]) -> None:
    jina = pytest.importorskip("haystack_integrations.components.rankers.jina")
    utils = pytest.importorskip("haystack.utils")
    ranker = jina.JinaRanker(model=MODEL, api_key=utils.Secret.from_token(KEY), base_url=f"{address}/v1/rerank")
    answer = ranker.run(query=QUERY, documents=haystack_documents(), top_k=3)
    assert_is(of_haystack(answer["documents"]), expected)
    assert answer["meta"]["usage"]["total_tokens"] > 0


def test_haystack_and_cohere(address: str, expected: dict[int, float]) -> None:
    cohere = pytest.importorskip("haystack_integrations.components.rankers.cohere")
    utils = pytest.importorskip("haystack.utils")
    ranker = cohere.CohereRanker(model=MODEL, api_key=utils.Secret.from_token(KEY), api_base_url=address)
    ranker.warm_up()
    assert_is(of_haystack(ranker.run(query=QUERY, documents=haystack_documents())["documents"]), expected)


def test_haystack_and_tei(address: str, expected: dict[int, float]) -> None:
    tei = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    utils = pytest.importorskip("haystack.utils")
    ranker = tei.HuggingFaceTEIRanker(url=address, token=utils.Secret.from_token(KEY), top_k=3)
    assert_is(of_haystack(ranker.run(query=QUERY, documents=haystack_documents())["documents"]), expected)
    wrong = tei.HuggingFaceTEIRanker(
        url=address, token=utils.Secret.from_token("wrong"), max_retries=1, retry_status_codes=[]
    )
    with pytest.raises(Exception, match="Unauthorized"):
        wrong.run(query=QUERY, documents=haystack_documents())


def llama_index_nodes() -> tuple[list[Any], Any]:
    schema = pytest.importorskip("llama_index.core.schema")
    nodes = [
        schema.NodeWithScore(node=schema.TextNode(text=text, id_=str(number)), score=0.0)
        for number, text in enumerate(TEXTS)
    ]
    return nodes, schema.QueryBundle(QUERY)


def of_llama_index(nodes: list[Any]) -> list[tuple[int, float]]:
    return [(int(node.node.node_id), node.score) for node in nodes]


def test_llama_index_and_tei(address: str, expected: dict[int, float]) -> None:
    tei = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    nodes, query = llama_index_nodes()
    reranker = tei.TextEmbeddingInference(base_url=address, top_n=3, auth_token=f"Bearer {KEY}")
    assert_is(of_llama_index(reranker.postprocess_nodes(nodes, query)), expected)


def test_llama_index_and_cohere(address: str, expected: dict[int, float]) -> None:
    cohere = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    nodes, query = llama_index_nodes()
    reranker = cohere.CohereRerank(top_n=3, model=MODEL, api_key=KEY, base_url=address)
    assert_is(of_llama_index(reranker.postprocess_nodes(nodes, query)), expected)


def test_langchain_and_cohere(address: str, expected: dict[int, float]) -> None:
    langchain = pytest.importorskip("langchain_cohere")
    documents = pytest.importorskip("langchain_core.documents")
    reranker = langchain.CohereRerank(model=MODEL, cohere_api_key=KEY, base_url=address, top_n=3)
    found = reranker.compress_documents(
        [documents.Document(text, metadata={"number": number}) for number, text in enumerate(TEXTS)], QUERY
    )
    assert_is([(each.metadata["number"], each.metadata["relevance_score"]) for each in found], expected)


def test_infinity_client(address: str, expected: dict[int, float]) -> None:
    client = pytest.importorskip("infinity_client")
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    with client.AuthenticatedClient(base_url=f"{address}/v1", token=KEY) as connection:
        answer = rerank.sync(client=connection, body=RerankInput(query=QUERY, documents=TEXTS, model=MODEL))
    assert_is([(each.index, each.relevance_score) for each in answer.results], expected)


def test_curl(address: str, expected: dict[int, float]) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    body = json.dumps({"query": QUERY, "texts": TEXTS})
    headers = ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}"]
    answer = subprocess.run(
        [curl, "--silent", "--fail", f"{address}/rerank", *headers, "-d", body], capture_output=True, check=True
    )
    assert_is([(each["index"], each["score"]) for each in json.loads(answer.stdout)], expected)
