"""The page for people, in a Chromium without a window, which is told what to do through its pipe."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from servers import QUERY, TEXTS, listening

from fastce import CrossEncoder

Tiny = Callable[..., str]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


class Browser:
    """A Chromium with one page. Messages of its protocol are JSON that ends in a zero byte."""

    def __init__(self, folder: Path):
        read, self._commands = os.pipe()
        self._events, write = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]

        def place() -> None:
            # The program reads from 3 and writes to 4; both are first moved out of each other's way.
            kept = os.dup(read), os.dup(write)
            os.dup2(kept[0], 3)
            os.dup2(kept[1], 4)

        self._process = subprocess.Popen(
            [str(CHROMIUM), *options], preexec_fn=place, close_fds=False, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: dict[str, str] = {}
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._events, 2**16)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        found = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        for _ in range(400):
            if self.value(expression):
                return
            time.sleep(0.05)
        raise AssertionError(f"{expression}\n{self.value('document.body.innerText')}")

    def open(self, address: str) -> None:
        self.do("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && document.getElementById('form') !== null")

    def type(self, name: str, text: str) -> None:
        """Types into a field, in place of what it has."""
        self.value(f"document.getElementById('{name}').focus(); document.getElementById('{name}').select()")
        self.do("Input.insertText", text=text)

    def names(self) -> set[tuple[str, str]]:
        """Roles and names that a screen reader tells."""
        nodes = self.do("Accessibility.getFullAXTree")["nodes"]
        return {
            (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")))
            for node in nodes
            if not node["ignored"]
        }

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._events)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


ROWS = """[...document.querySelectorAll('#results li')].map(item => {
  const width = name => item.querySelector(name).getBoundingClientRect().width;
  const text = name => item.querySelector(name).textContent;
  return [text('.text'), text('.score'), width('.bar span') / width('.bar')];
})"""


def test_people_rank_documents(browser: Browser, tiny: Tiny) -> None:
    texts = [*TEXTS, "<b onclick='alert(1)'>bold & \"quoted\"</b>"]
    scores = CrossEncoder(tiny("bert"), device="cpu").predict(
        [(QUERY, text) for text in texts], activation_fn="sigmoid"
    )
    with listening(tiny("bert"), served_names=("house-reranker",)) as address:
        browser.open(address)
        browser.wait_for("document.getElementById('model').textContent.startsWith('house-reranker, fp32')")
        browser.type("query", QUERY)
        browser.type("documents", "\n".join([texts[0], "", *texts[1:], ""]))
        browser.value("document.getElementById('rank').click()")
        browser.wait_for("document.querySelectorAll('#results li').length > 0")
        rows = browser.value(ROWS)
        ranked = sorted(zip(texts, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        assert [row[:2] for row in rows] == [[text, f"{score:.4f}"] for text, score in ranked]
        assert [row[2] for row in rows] == pytest.approx([score for _, score in ranked], abs=0.01)
        status = browser.value("document.getElementById('status').textContent")
        assert status.startswith("5 documents, ")
        assert status.endswith(" ms")
        loaded = browser.value("performance.getEntriesByType('resource').map(each => each.name)")
        assert {each.rpartition("/")[0] for each in loaded} <= {address}
        named = browser.names()
    browser.value("document.getElementById('rank').click()")
    browser.wait_for("document.getElementById('status').textContent === \"The server can't be reached.\"")
    assert {
        ("textbox", "Query"),
        ("textbox", "Documents, one a line"),
        ("button", "Rank"),
        ("list", "Documents, best first"),
    } <= named
    assert ("status", "") in named


def test_the_page_asks_for_the_key_and_tells_what_is_refused(browser: Browser, tiny: Tiny) -> None:
    with listening(tiny("bert"), api_key="secret", max_documents=2) as address:
        browser.open(address)
        browser.wait_for("!document.getElementById('locked').hidden")
        browser.type("key", "secret")
        browser.value("document.getElementById('key').dispatchEvent(new Event('change'))")
        browser.wait_for("document.getElementById('model').textContent.includes('fp32')")
        browser.type("documents", "one\ntwo\nthree")
        browser.value("document.getElementById('rank').click()")
        browser.wait_for("document.getElementById('status').classList.contains('bad')")
        assert "3 documents are more than the 2" in browser.value("document.getElementById('status').textContent")
        browser.type("documents", "one\ntwo")
        browser.value("document.getElementById('rank').click()")
        browser.wait_for("document.querySelectorAll('#results li').length === 2")
