"""Scores in other processes, in the ways that people start them: `python scoring_processes.py MODEL WAY...`.

Prints what this process scored before, and for each way what the others scored and the seconds that it took.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.nn import Identity

from fastce import CrossEncoder

PAIRS = [(f"where is sea {n % 7}", f"the train {n} to the coast leaves every 30 minutes") for n in range(60)]
CHILDREN = 3

model: Any = None


def take(given: Any) -> None:
    """Makes a model this process's own."""
    global model
    model = given


def scores(_: object = None) -> list[float]:
    """What this process's model says."""
    return [float(score) for score in model.predict(PAIRS, activation_fn=Identity())]


def many_scores(_: object = None) -> list[float]:
    """The same, after a call so large that torch's own operations take several threads."""
    model.predict(PAIRS * 600)
    return scores()


def pool(method: str, work: Callable[..., list[float]] = scores) -> list[list[float]]:
    """A pool of processes; forked ones inherit the model, others get it pickled."""
    context = multiprocessing.get_context(method)
    arguments: Any = {} if method == "fork" else {"initializer": take, "initargs": (model,)}
    with context.Pool(CHILDREN, **arguments) as processes:
        return processes.map(work, range(CHILDREN))


def fork_while_scoring() -> list[list[float]]:
    """Forks while other threads of this process are scoring, and perhaps hold locks."""
    over = threading.Event()

    def score_on() -> None:
        while not over.is_set():
            scores()

    threads = [threading.Thread(target=score_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        return [result for _ in range(4) for result in pool("fork")]
    finally:
        over.set()
        for thread in threads:
            thread.join()


def fork_of_a_fork() -> list[list[float]]:
    """A forked process that scores, then forks."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        results = [scores(), *pool("fork")]
        with os.fdopen(writer, "w") as pipe:
            json.dump(results, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        results = json.load(pipe)
    os.waitpid(child, 0)
    return results


def joblib_loky() -> list[list[float]]:
    """Processes of joblib's own kind, which pickle by value."""
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    predict = partial(model.predict, activation_fn=Identity())
    results = Parallel(n_jobs=2)(delayed(predict)(PAIRS) for _ in range(CHILDREN))
    get_reusable_executor().shutdown(wait=True)
    return [[float(score) for score in result] for result in results]


def datasets_map() -> list[list[float]]:
    """Columns of a dataset, mapped by two processes."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = Dataset.from_dict({"first": [first for first, _ in PAIRS], "second": [second for _, second in PAIRS]})

    def add_scores(batch: dict[str, list[str]]) -> dict[str, list[float]]:
        pairs = list(zip(batch["first"], batch["second"], strict=True))
        return {"score": model.predict(pairs, activation_fn=Identity()).tolist()}

    return [rows.map(add_scores, batched=True, batch_size=16, num_proc=2)["score"][:]]


WAYS: dict[str, Callable[[], list[list[float]]]] = {
    "fork": lambda: pool("fork"),
    "fork, large calls": lambda: pool("fork", many_scores),
    "fork while scoring": fork_while_scoring,
    "fork of a fork": fork_of_a_fork,
    "forkserver": lambda: pool("forkserver"),
    "spawn": lambda: pool("spawn"),
    "joblib": joblib_loky,
    "datasets": datasets_map,
}


if __name__ == "__main__":
    take(CrossEncoder(sys.argv[1], backend="cpp", num_threads=4))
    print(json.dumps(many_scores()), flush=True)
    for way in sys.argv[2:]:
        start = time.perf_counter()
        results = WAYS[way]()
        print(json.dumps({"way": way, "results": results, "seconds": time.perf_counter() - start}), flush=True)
