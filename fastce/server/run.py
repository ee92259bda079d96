"""Runs the application: one process, or several that share a socket and the CPUs."""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from fastce import subprocesses
from fastce.options import ModelOptions
from fastce.server.app import create_app
from fastce.server.metrics import SHARED_FOLDER
from fastce.server.settings import Settings
from fastce.threads import usable_cpus

KEEP_ALIVE = 75
"""Seconds that idle connections are kept: longer than balancers do, so that none sends on one that is being closed."""

HEALTHCHECK = 60
"""Seconds in which a worker must answer its parent: one that imports and loads may be busy for a while."""

LOGGING = deepcopy(LOGGING_CONFIG)
LOGGING["loggers"]["fastce"] = LOGGING["loggers"]["uvicorn"]


@dataclass(frozen=True)
class AppFactory:
    """Makes the application, in whatever process."""

    options: ModelOptions
    settings: Settings

    def __call__(self) -> FastAPI:
        """The application of this process, which ends with the one that started it."""
        if (parent := parent_process()) is not None:
            Thread(target=follow, args=(parent,), daemon=True).start()
        return create_app(self.options, self.settings, end)


class Config(uvicorn.Config):
    """The settings of uvicorn. What each process does with its logging it does with its signals, too."""

    def configure_logging(self) -> None:
        """Sets up this process."""
        super().configure_logging()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # uvicorn raises them again when all is done


class Supervisor(Multiprocess):
    """Starts workers again that died; what was waiting in them waits no more."""

    def keep_subprocess_alive(self) -> None:
        """Looks after the workers."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)


def follow(parent: BaseProcess) -> None:
    """Stops this process gracefully when its parent is gone, which may have been killed and told nobody."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def end(error: BaseException | None) -> None:
    """Ends a process that has no model, and answered nothing yet."""
    if error is not None:
        sys.stderr.write(f"fastce: {error}\n")
        sys.stderr.flush()
        os._exit(1 if parent_process() is None else STARTUP_FAILURE)  # which the parent does not start again


def serve(options: ModelOptions, settings: Settings, host: str, port: int, workers: int = 1) -> int:
    """Serves until a signal says stop; what was accepted until then is answered.

    Args:
        options: What the model is loaded with.
        settings: The limits.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        workers: Processes, among which the CPUs are shared out.

    Returns:
        The exit status.
    """
    config = Config(
        AppFactory(options, settings),
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.timeout),  # a client may never read its answer
        timeout_worker_healthcheck=HEALTHCHECK,
        log_config=LOGGING,
    )
    if workers == 1:
        uvicorn.Server(config).run(sockets=[config.bind_socket()])
        return 0
    threads = options.num_threads or max(1, usable_cpus() // workers)
    environment = subprocesses.environment(threads)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    config.app = AppFactory(replace(options, num_threads=threads), settings)
    with tempfile.TemporaryDirectory(prefix="fastce-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        supervisor = Supervisor(config, sockets=[config.bind_socket()])
        supervisor.run()
    return int(any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes))
