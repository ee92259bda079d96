"""Two processes learn what one does from batches of twice the size."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import PAIRS
from tolerance import TRAINED_WEIGHTS
from torch import nn
from torch.utils.data import DataLoader
from training_runs import NO_DROPOUT, LazySampler

from fastce import CrossEncoder, InputExample
from fastce.training.processes import Processes

pytest.importorskip("accelerate")

Tiny = Callable[..., str]


def train(
    directory: str, batch_size: int, output: str, num_pairs: int, resume: bool = False, adapter: bool = False
) -> None:
    """One process's run: saves the model, and the losses and evaluations it saw."""
    torch.set_num_threads(1)
    folder = Path(output)
    examples: Any = [InputExample(texts=list(pair), label=n % 5 / 4) for n, pair in enumerate(PAIRS[:num_pairs])]
    model = CrossEncoder(directory)
    if adapter:
        torch.manual_seed(int(os.environ.get("RANK", "0")))  # so that the main process's adapter has to reach the other
        model.add_adapter(pytest.importorskip("peft").LoraConfig(r=3, target_modules="all-linear"))
    losses: list[float] = []
    evaluations: list[int] = []

    def loss_fct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        losses.append(loss.item() * len(labels))
        return loss

    def evaluator(model: CrossEncoder, epoch: int = 0, **_: Any) -> float:
        evaluations.append(epoch)
        return 0.5

    model.fit(
        DataLoader(examples, batch_size=batch_size, sampler=LazySampler(num_pairs)),
        evaluator,
        epochs=2,
        loss_fct=loss_fct,
        optimizer_class=torch.optim.SGD,
        optimizer_params={"lr": 0.05},
        warmup_steps=0,
        output_path=folder,
        save_best_model=False,
        checkpoint_path=folder / "checkpoints",
        checkpoint_save_steps=4,
        resume_from_checkpoint=resume,
        seed=3,
    )
    rank = os.environ.get("RANK", "0")
    (folder / f"seen-{rank}.json").write_text(json.dumps({"losses": losses, "evaluations": evaluations}))


def sum_gradients(output: str) -> None:
    """One process's gradients, summed: of a parameter that both use, one that the first uses, one that nobody does."""
    processes = Processes(torch.device("cpu"))
    parameters = [nn.Parameter(torch.zeros(size)) for size in (2, 3, 4)]
    for parameter in parameters[: 2 - processes.rank]:
        parameter.grad = torch.full_like(parameter, processes.rank + 1.0)
    processes.sum_gradients(parameters)
    processes.wait()
    found = [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]
    (Path(output) / f"gradients-{processes.rank}.json").write_text(json.dumps(found))


def environment() -> dict[str, str]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def launch(function: Callable[..., None], *arguments: Any) -> str:
    """Calls a function of this file in two processes; returns what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run(
        [*command, function.__name__, json.dumps(arguments, default=str)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return CrossEncoder(folder).model.state_dict()


@pytest.mark.parametrize(
    ("num_pairs", "adapter"),
    [(38, False), pytest.param(32, False, marks=pytest.mark.stress), pytest.param(32, True, marks=pytest.mark.stress)],
)
def test_two_processes_equal_one_with_twice_the_batch(
    tiny: Tiny, tmp_path: Path, num_pairs: int, adapter: bool
) -> None:
    directory = tiny("bert", **NO_DROPOUT)
    train(directory, 8, str(tmp_path / "one"), num_pairs, adapter=adapter)
    (tmp_path / "two").mkdir()
    printed = launch(train, directory, 4, tmp_path / "two", num_pairs, False, adapter)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= TRAINED_WEIGHTS
    seen = [json.loads((tmp_path / "two" / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    assert [part["evaluations"] for part in seen] == [[0, 1], []]
    alone = json.loads((tmp_path / "one" / "seen-0.json").read_text())["losses"]
    rest = [*seen[1]["losses"], *[0.0] * (len(alone) - len(seen[1]["losses"]))]
    if num_pairs == 32:  # else the second process has nothing to do in the last step of an epoch
        assert [a + b for a, b in zip(seen[0]["losses"], rest, strict=True)] == pytest.approx(alone, abs=1e-4)
    assert printed.count("Training:   0%") == 1, "the bar belongs to the main process"


@pytest.mark.stress
def test_two_processes_resume(tiny: Tiny, tmp_path: Path) -> None:
    directory = tiny("bert")
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
        launch(train, directory, 4, tmp_path / name, 32)
    kept = tmp_path / "resumed" / "checkpoints"
    for checkpoint in kept.iterdir():
        if checkpoint.name != "checkpoint-4":
            checkpoint.rename(tmp_path / checkpoint.name)
    launch(train, directory, 4, tmp_path / "resumed", 32, True)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.stress
def test_a_parameter_without_a_gradient_gets_none(tmp_path: Path) -> None:
    launch(sum_gradients, tmp_path)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"gradients-{rank}.json").read_text())
        assert found == [[3.0, 3.0], [1.0, 1.0, 1.0], None]


@pytest.mark.stress
def test_processes_of_mpi_find_each_other(tmp_path: Path) -> None:
    """As Open MPI's mpirun tells them who they are."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMPI_COMM_WORLD_SIZE": "2"}
    command = [sys.executable, __file__, "sum_gradients", json.dumps([str(tmp_path)])]
    ranks = [{f"OMPI_COMM_WORLD_{name}": str(rank) for name in ("RANK", "LOCAL_RANK")} for rank in (0, 1)]
    running = [subprocess.Popen(command, env=environment() | place | rank) for rank in ranks]
    assert [process.wait(120) for process in running] == [0, 0]
    assert [json.loads((tmp_path / f"gradients-{rank}.json").read_text())[0] for rank in (0, 1)] == [[3.0, 3.0]] * 2


def test_a_process_alone() -> None:
    alone = Processes(torch.device("cpu"))
    assert (alone.count, alone.rank, alone.is_main) == (1, 0, True)
    assert alone.share([1, 2, 3]) == [1, 2, 3]
    assert alone.total(2.0) == 2.0
    assert alone.gather("x") == ["x"]


if __name__ == "__main__":
    {"train": train, "sum_gradients": sum_gradients}[sys.argv[1]](*json.loads(sys.argv[2]))
