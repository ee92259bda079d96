"""Runs that stop and go on: they end as if they had never stopped, or say why they can't."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PAIRS
from torch.utils.data import DataLoader
from training_runs import (
    FAST,
    DrawnTexts,
    LazySampler,
    StoppedError,
    distance,
    loader,
    one_thread,
    stop_at,
    weights_after,
)

from fastce import CrossEncoder, InputExample
from fastce.training.state import checkpoints

Tiny = Callable[..., str]
__all__ = ["one_thread"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", ["bert", "ernie"])
@pytest.mark.parametrize("length_grouping", [False, True])
@pytest.mark.parametrize("stop", [4, 9, 16])
def test_a_resumed_run_ends_as_one_that_never_stopped(
    tiny: Tiny, tmp_path: Path, family: str, length_grouping: bool, stop: int
) -> None:
    directory = tiny(family)
    options: dict[str, Any] = {"epochs": 2, "seed": 7, "length_grouping": length_grouping, "use_amp": stop == 9}
    whole = weights_after(directory, loader(), **options)
    options |= {"checkpoint_path": tmp_path, "checkpoint_save_steps": 3, "resume_from_checkpoint": True}
    with pytest.raises(StoppedError):
        weights_after(directory, loader(), loss_fct=stop_at(stop), **options)
    latest = checkpoints(tmp_path)[-1]
    assert latest.name == f"checkpoint-{(stop - 1) // 3 * 3}"
    assert distance(weights_after(directory, loader(), **options), whole) == 0.0
    assert CrossEncoder(latest).predict(PAIRS[:2]).shape == (2,)
    (latest / "training_state.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"resume_from_checkpoint: .* has no training_state.pt"):
        weights_after(directory, loader(), **(options | {"resume_from_checkpoint": latest}))


def test_a_resumed_run_knows_its_best_model(tiny: Tiny, tmp_path: Path) -> None:
    scores = iter([0.9, 0.1, 0.2])
    options: dict[str, Any] = FAST | {
        "epochs": 3,
        "output_path": tmp_path / "best",
        "checkpoint_path": tmp_path / "kept",
        "checkpoint_save_steps": 1,
        "checkpoint_save_total_limit": 2,
        "resume_from_checkpoint": True,
    }
    with pytest.raises(StoppedError):
        CrossEncoder(tiny("bert")).fit(loader(8), lambda *_, **__: next(scores), loss_fct=stop_at(4), **options)
    assert [folder.name for folder in checkpoints(tmp_path / "kept")] == ["checkpoint-2", "checkpoint-3"]
    best = CrossEncoder(tmp_path / "best").predict(PAIRS[:3])
    CrossEncoder(tiny("bert")).fit(loader(8), lambda *_, **__: next(scores), **options)
    assert (CrossEncoder(tmp_path / "best").predict(PAIRS[:3]) == best).all()


LOADERS: dict[str, Callable[[], DataLoader[InputExample]]] = {
    "generator": lambda: DataLoader(
        loader().dataset, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "lazy": lambda: DataLoader(loader().dataset, batch_size=4, sampler=LazySampler(32)),
    "drawn": lambda: DataLoader(DrawnTexts(), batch_size=4, shuffle=True),
    "drawn by workers": lambda: DataLoader(DrawnTexts(), batch_size=4, shuffle=True, num_workers=1),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_resumed_run_sees_the_same_examples(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    directory = tiny("bert")
    options: dict[str, Any] = {"epochs": 3, "seed": 7}
    whole = weights_after(directory, LOADERS[kind](), **options)
    assert distance(weights_after(directory, LOADERS[kind](), **options), whole) == 0.0
    for stop in (6, 8, 11):
        kept: dict[str, Any] = {"checkpoint_path": tmp_path / str(stop), "resume_from_checkpoint": True}
        options |= kept | {"checkpoint_save_steps": stop - 1}
        with pytest.raises(StoppedError):
            weights_after(directory, LOADERS[kind](), loss_fct=stop_at(stop), **options)
        assert distance(weights_after(directory, LOADERS[kind](), **options), whole) == 0.0, stop


def test_numbers_of_numpy_can_be_kept(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint_path": tmp_path, "checkpoint_save_steps": 4, "warmup_steps": np.int64(2)}
    options["optimizer_params"] = {"lr": np.float64(1e-3), "betas": (0.9, 0.99)}
    weights_after(tiny("bert"), loader(), **options)
    weights_after(tiny("bert"), loader(), resume_from_checkpoint=tmp_path / "checkpoint-4", **options)


def test_a_run_resumed_into_another_folder_saves_there(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = FAST | {"epochs": 3, "checkpoint_path": tmp_path, "checkpoint_save_steps": 1}
    scores = iter([0.9, 0.1, 0.2])

    def evaluator(*_: Any, **__: Any) -> float:
        return next(scores)

    with pytest.raises(StoppedError):
        CrossEncoder(tiny("bert")).fit(
            loader(8), evaluator, output_path=tmp_path / "first", loss_fct=stop_at(4), **options
        )
    options["resume_from_checkpoint"] = True
    CrossEncoder(tiny("bert")).fit(loader(8), evaluator, output_path=tmp_path / "second", **options)
    assert (tmp_path / "second" / "model.safetensors").exists()


def test_a_checkpoint_of_another_kind_of_run_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = FAST | {"checkpoint_path": tmp_path, "checkpoint_save_steps": 4}
    CrossEncoder(tiny("bert")).fit(loader(), **options)
    with pytest.raises(ValueError, match=r"checkpoint-8 is of a run with .*'batches_per_step': 1.*, not .*: 2"):
        CrossEncoder(tiny("bert")).fit(loader(), gradient_accumulation_steps=2, resume_from_checkpoint=True, **options)


def test_another_optimizer_is_refused_and_leaves_the_weights(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = FAST | {"checkpoint_path": tmp_path, "checkpoint_save_steps": 4}
    CrossEncoder(tiny("bert")).fit(loader(), **options)
    model = CrossEncoder(tiny("bert"))
    before = model.predict(PAIRS[:4])
    with pytest.raises(ValueError, match=r"is of a run with .*'AdamW'.*, not .*'Adagrad'"):
        model.fit(loader(), optimizer_class=torch.optim.Adagrad, resume_from_checkpoint=True, **options)
    model.model.classifier.bias.requires_grad = False
    with pytest.raises(ValueError, match=r"is of a run with .*'41 trained of 41 .*, not .*'40 trained of 41 "):
        model.fit(loader(), resume_from_checkpoint=True, **options)
    assert np.array_equal(model.predict(PAIRS[:4]), before)
    wider = CrossEncoder(tiny("bert", num_labels=3))
    with pytest.raises(ValueError, match=r"is of a run with .*, not "):
        wider.fit(loader(num_labels=3), resume_from_checkpoint=True, **options)


def test_what_is_no_checkpoint_is_named(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint_path": tmp_path / "kept", "checkpoint_save_steps": 4}
    weights_after(tiny("bert"), loader(), **options)
    (tmp_path / "kept" / "checkpoint-8" / "training_state.pt").write_bytes(b"PK broken")
    for place, error, message in (
        (tmp_path / "none", FileNotFoundError, "none is no folder"),
        (tmp_path / "kept", FileNotFoundError, "has no training_state.pt; in it are checkpoint-4, checkpoint-8"),
        (tmp_path / "kept" / "checkpoint-8", ValueError, "checkpoint-8/training_state.pt is broken"),
    ):
        with pytest.raises(error, match=f"resume_from_checkpoint: .*{message}"):
            weights_after(tiny("bert"), loader(), resume_from_checkpoint=place)


def test_a_limit_spares_the_checkpoint_just_written(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = FAST | {"checkpoint_path": tmp_path, "checkpoint_save_total_limit": 1}
    CrossEncoder(tiny("bert")).fit(loader(), checkpoint_save_steps=8, **options)
    CrossEncoder(tiny("bert")).fit(loader(16), checkpoint_save_steps=4, **options)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-8"]


def test_resuming_needs_a_place(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="resume_from_checkpoint: True needs a checkpoint_path"):
        CrossEncoder(tiny("bert")).fit(loader(), resume_from_checkpoint=True, **FAST)


def interrupted_at(step: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A loss in whose computation somebody presses Ctrl-C."""
    steps = iter(range(1, 10_000))

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if next(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)

    return loss


def test_an_interrupted_run_says_what_is_kept_and_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "seed": 7}
    whole = weights_after(tiny("bert"), loader(), **options)
    options |= {"checkpoint_path": tmp_path / "kept", "checkpoint_save_steps": 3, "output_path": tmp_path / "best"}
    model = CrossEncoder(tiny("bert"))
    with pytest.raises(KeyboardInterrupt) as caught:
        model.fit(loader(), lambda *_, **__: 1.0, loss_fct=interrupted_at(11), **FAST, **options)
    assert str(caught.value) == (
        "fit was interrupted after 10 of 16 steps; fit with resume_from_checkpoint=True goes on from "
        f"{tmp_path}/kept/checkpoint-9; {tmp_path}/best has the best model so far"
    )
    shown = traceback.format_exception(caught.value)
    assert len("".join(shown).splitlines()) <= 16, "".join(shown)
    assert not model.model.training
    assert np.isfinite(model.predict(PAIRS[:5])).all()
    resumed = weights_after(tiny("bert"), loader(), **options, resume_from_checkpoint=True)
    assert distance(resumed, whole) == 0.0


def test_an_interrupted_run_that_keeps_nothing_says_so(tiny: Tiny) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"after 0 of 8 steps; nothing is saved; model\.save keeps"):
        CrossEncoder(tiny("bert")).fit(loader(), loss_fct=interrupted_at(1), **FAST)
