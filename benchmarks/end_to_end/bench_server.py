"""The server under load, beside sentence-transformers behind a plain FastAPI route, infinity, and `predict`.

    export PYTHONPATH=benchmarks
    python benchmarks/end_to_end/bench_server.py --out benchmarks/results/NAME --infinity VENV/bin/infinity_emb
    python benchmarks/end_to_end/bench_server.py --out FOLDER --soak 600

Needs the extra server and Locust, which shares the CPUs; its share is stated. Every system is started once and then
asked in turns, after its scores were compared with those of `predict`. A run adds to the figures that the folder has.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple
from urllib import error, request

import numpy as np
import typer
from random_model import write_random_model

from fastce import CrossEncoder
from fastce.bench.machine import describe_machine
from fastce.bench.workload import make_workload

HERE = Path(__file__).parent
SHAPE = "minilm-l6"
DOCUMENTS = 50
PAIR_TOKENS = "lognormal:111"  # documents of 100 tokens, a query of 8 and three special ones
BODIES = 8
FIRST_PORT = 8310
ROUND_TRIPS = 2.0
"""Answers that a client waits for at least, so that slow systems are measured for longer."""

Figures = dict[str, Any]


class System(NamedTuple):
    """What is measured.

    Attributes:
        name: What it is called.
        command: How it is started; `{model}` and `{port}` stand for these.
        path: Where it ranks.
    """

    name: str
    command: list[str]
    path: str = "/rerank"


def fastce_system(precision: str) -> System:
    command = [sys.executable, "-m", "fastce", "serve", "--model", "{model}", "--port", "{port}"]
    return System(f"fastce {precision}", [*command, "--precision", precision], "/v1/rerank")


PLAIN = System(
    "sentence-transformers",
    [sys.executable, "-m", "uvicorn", "plain_route:app", "--app-dir", str(HERE), "--port", "{port}"],
)


def infinity_system(program: str) -> System:
    command = [program, "v2", "--model-id", "{model}", "--engine", "torch", "--device", "cpu", "--port", "{port}"]
    return System("infinity", [*command, "--no-bettertransformer", "--no-model-warmup"])


def main(
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Where server.json, .md and .png go.")],
    infinity: Annotated[str | None, typer.Option("--infinity", help="The program infinity_emb.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="For which load lasts, at least.")] = 15.0,
    clients: Annotated[str, typer.Option("--clients")] = "1,8,32",
    soak: Annotated[
        float, typer.Option("--soak", help="Seconds at three times what fastce can do, and no more.")
    ] = 0.0,
) -> None:
    """Measure the server."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        model = Path(folder) / SHAPE
        write_random_model(SHAPE, model)
        bodies = make_bodies(model)
        file = Path(folder) / "bodies.jsonl"
        file.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")
        systems = [
            fastce_system("int8"),
            fastce_system("fp32"),
            PLAIN,
            *([infinity_system(infinity)] if infinity else []),
        ]
        if soak:
            systems = systems[:1]
        addresses = {}
        for number, system in enumerate(systems):
            addresses[system.name] = stack.enter_context(running(system, model, FIRST_PORT + number, Path(folder)))
            check(system.name, addresses[system.name], model, bodies[0])
        if soak:
            write_json(out / "server_soak.json", soaked(addresses["fastce int8"], file, soak, Path(folder)))
            return
        found = read_json(out / "server.json") or {"machine": describe_machine(), "predict": {}, "systems": {}}
        for precision in ("int8", "fp32"):
            found["predict"].setdefault(precision, []).append(predict_rate(model, precision, bodies, seconds))
        for count in map(int, clients.split(",")):
            for name, address in addresses.items():
                rates = found["systems"].setdefault(name, {}).setdefault(str(count), [])
                rates.append(measured(address, file, count, seconds, Path(folder)))
                typer.echo(f"{name}, {count} clients: {rates[-1]}")
                write_json(out / "server.json", found)
    (out / "server.md").write_text(table(found), encoding="utf-8")
    draw(found, out / "server.png")
    typer.echo(table(found))


def make_bodies(model: Path) -> list[dict[str, Any]]:
    """Requests of one query and its documents, of made words."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    pairs = make_workload(tokenizer, 512, source=None, distribution=PAIR_TOKENS, num_pairs=BODIES * DOCUMENTS).pairs
    groups = [pairs[start : start + DOCUMENTS] for start in range(0, len(pairs), DOCUMENTS)]
    return [{"query": group[0][0], "documents": [second for _, second in group]} for group in groups]


@contextmanager
def running(system: System, model: Path, port: int, folder: Path) -> Iterator[str]:
    """Where a server ranks, as long as it runs."""
    command = [part.format(model=model, port=port) for part in system.command]
    address = f"http://127.0.0.1:{port}"
    with (folder / f"{port}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"MODEL": str(model)})
        try:
            while not answers(f"{address}/openapi.json") or (
                system.path == "/v1/rerank" and not answers(f"{address}/health")
            ):
                if process.poll() is not None:
                    raise RuntimeError(f"{system.name} ended: {Path(log.name).read_text()[-3000:]}")
                time.sleep(0.2)
            yield address + system.path
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(address: str) -> bool:
    try:
        with request.urlopen(address):
            return True
    except (error.URLError, ConnectionError):
        return False


def check(name: str, address: str, model: Path, body: dict[str, Any]) -> None:
    """Raises ValueError unless a system's scores are those of `predict`, as far as precisions go."""
    data = json.dumps(body | {"model": str(model)} if name == "infinity" else body).encode()
    with request.urlopen(request.Request(address, data, {"Content-Type": "application/json"})) as answer:
        results = json.load(answer)["results"]
    scores = np.zeros(len(results))
    scores[[result["index"] for result in results]] = [result["relevance_score"] for result in results]
    pairs = [(body["query"], document) for document in body["documents"]]
    expected = CrossEncoder(str(model), device="cpu").predict(pairs, activation_fn="sigmoid")
    agreement = float(np.corrcoef(scores, expected)[0, 1])
    if agreement < 0.99:
        raise ValueError(f"{name}: its scores have a correlation of {agreement:.4f} with those of predict")


def predict_rate(model: Path, precision: Any, bodies: list[dict[str, Any]], seconds: float) -> float:
    """Requests a second that `predict` does by itself, called with the pairs of one request after the other."""
    encoder = CrossEncoder(str(model), device="cpu", precision=precision)
    requests = [[(body["query"], document) for document in body["documents"]] for body in bodies]
    encoder.predict(requests[0])
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        encoder.predict(requests[count % len(requests)])
        count += 1
    return round(count / (time.perf_counter() - start), 3)


def load(address: str, file: Path, folder: Path, users: int, seconds: float, rate: float = 0.0) -> dict[str, Any]:
    """What Locust found."""
    out = folder / "found.json"
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "server_load.py"), "--headless", "--only-summary"]
    command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{max(1, round(seconds))}s"]
    command += ["--stop-timeout", "600", "--host", address, "--exit-code-on-error", "0", "--loglevel", "ERROR"]
    variables = {"BODIES": str(file), "OUT": str(out), "USERS": str(users), "RATE": str(rate)}
    subprocess.run(command, env=os.environ | variables, check=True, capture_output=True)
    found: dict[str, Any] = read_json(out)
    return found


def measured(address: str, file: Path, clients: int, seconds: float, folder: Path) -> Figures:
    """Requests a second, latencies, and the share of all CPUs that the load took."""
    first = load(address, file, folder, 1, 2)["requests"]
    alone = statistics.median(end - start for start, end, _ in first)
    found = load(address, file, folder, clients, max(seconds, ROUND_TRIPS * clients * alone))
    requests = found["requests"]
    wrong = [status for *_, status in requests if status != 200]
    if wrong:
        raise ValueError(f"{address}: {len(wrong)} of {len(requests)} requests failed, with {set(wrong)}")
    lasted = max(end for _, end, _ in requests) - min(start for start, *_ in requests)
    latencies = [end - start for start, end, _ in requests]
    p50, p95, p99 = (round(float(np.percentile(latencies, share)), 3) for share in (50, 95, 99))
    return {
        "requests": len(requests),
        "requests_per_second": round(len(requests) / lasted, 3),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "load_cpu_share": round(found["cpu_seconds"] / lasted / (os.cpu_count() or 1), 4),
    }


def soaked(address: str, file: Path, seconds: float, folder: Path) -> Figures:
    """Status codes and the server's memory at three times what it can do."""
    capacity = measured(address, file, 16, 15, folder)["requests_per_second"]
    pid = process_at(address)
    before = resident_mb(pid)
    memory: list[float] = []
    found: dict[str, Any] = {}
    piece = min(60.0, seconds)
    statuses: dict[str, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = load(address, file, folder, 150, piece, rate=3 * capacity)
        for *_, status in found["requests"]:
            statuses[str(status)] = statuses.get(str(status), 0) + 1
        memory.append(resident_mb(pid))
        typer.echo(f"{statuses}, {memory[-1]:.0f} MB {' '.join(found['errors'])}")
    return {"capacity": capacity, "seconds": seconds, "statuses": statuses, "memory_mb": [before, *memory]}


def process_at(address: str) -> int:
    """The process that listens at an address."""
    import psutil

    port = int(address.split(":")[2].split("/")[0])
    for connection in psutil.net_connections("tcp"):
        if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
            return connection.pid
    raise ValueError(f"nobody listens at {address}")


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def write_json(file: Path, found: Any) -> None:
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def middle(rounds: list[Figures], name: str) -> float:
    """The median of a figure over the rounds."""
    return float(statistics.median(figures[name] for figures in rounds))


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine = found["machine"]
    lines = [
        f"Requests of {DOCUMENTS} documents of about 100 tokens, {SHAPE} with random weights, {machine['cores']} cores "
        f"of {machine['cpu']} (family {machine['family']}, model {machine['model']}). The last rows are `predict` by "
        "itself, called with one request's pairs after the other's.",
        "",
        "| system | clients | requests/s | p50 s | p95 s | p99 s | load's share of the CPUs |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, by_clients in found["systems"].items():
        for clients, rounds in by_clients.items():
            figures = [f"{middle(rounds, each):.2f}" for each in ("requests_per_second", "p50", "p95", "p99")]
            lines.append(f"| {name} | {clients} | {' | '.join(figures)} | {middle(rounds, 'load_cpu_share'):.1%} |")
    for precision, rates in found["predict"].items():
        lines.append(f"| `predict`, {precision} | | {statistics.median(rates):.2f} | | | | |")
    return "\n".join(lines) + "\n"


def draw(found: dict[str, Any], file: Path) -> None:
    """The load curve: requests a second by clients."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, by_clients in found["systems"].items():
        clients = [int(count) for count in by_clients]
        axes.plot(clients, [middle(rounds, "requests_per_second") for rounds in by_clients.values()], "o-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [str(count) for count in clients])
    axes.set_xlabel("clients")
    axes.set_ylabel(f"requests of {DOCUMENTS} documents a second")
    axes.set_ylim(0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    typer.run(main)
