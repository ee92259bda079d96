"""The training loop behind `CrossEncoder.fit`."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from fastce.checkpoints.adapters import merged_module
from fastce.checks import describe, is_sequence
from fastce.progress import progress_bar
from fastce.training.batches import AHEAD, WINDOW, grouped_by_length, prepared
from fastce.training.checks import check_dataloader, check_evaluator, check_options, shape_of
from fastce.training.evaluation import Evaluation
from fastce.training.model import TrainableModel
from fastce.training.optimizers import make_optimizer
from fastce.training.options import FitOptions
from fastce.training.processes import Processes
from fastce.training.schedulers import get_scheduler, warms_up_to_the_end
from fastce.training.state import (
    RandomStream,
    load_state,
    load_weights,
    random_state,
    resume_folder,
    save_state,
    set_random_state,
)
from fastce.training.stepper import Stepper
from fastce.training.threads import SharedThreads
from fastce.training.tracking import make_tracker

logger = logging.getLogger("fastce.training")


def fit(model: TrainableModel, train_dataloader: Any, options: FitOptions) -> None:
    """Fine-tunes a model; see `CrossEncoder.fit`."""
    check_options(options)
    check_dataloader(train_dataloader)
    check_evaluator(options.evaluator, model.num_labels)
    merged_module(model.model)  # adapters that can't be saved in the end say so now
    resumed = resume_folder(options.resume_from_checkpoint, options.checkpoint_path)
    if options.seed is not None:
        set_seed(options.seed)
    processes = Processes(model.device)
    with raw_examples(train_dataloader), checkpointed_gradients(model, options.gradient_checkpointing):
        run = Run(model, train_dataloader, options, processes)
        model.model_card_data.training = run.facts
        if resumed is not None:
            run.resume(resumed)
        try:
            run.train()
        except KeyboardInterrupt:  # the way it came tells nobody anything
            raise KeyboardInterrupt(what_is_kept(run)) from None
    if options.output_path is not None and processes.is_main and not run.evaluation.has_saved:
        model.save(options.output_path)
    processes.wait()


class Run:
    """A training run: the loop and where it stands."""

    def __init__(self, model: TrainableModel, dataloader: Any, options: FitOptions, processes: Processes):
        self.model = model
        self.dataloader = dataloader
        self.options = options
        self.processes = processes
        processes.take_weights_of_main(model.model.state_dict().values())
        self.batches_per_step = options.gradient_accumulation_steps * processes.count
        self.steps_per_epoch = -(-len(dataloader) // self.batches_per_step)
        self.kind = {  # what a run must share with the one that it goes on with
            "processes": processes.count,
            "batches_per_step": self.batches_per_step,
            "steps_per_epoch": self.steps_per_epoch,
            "length_grouping": options.length_grouping,
            "optimizer": options.optimizer_class.__name__,
            "model": shape_of(model.model),
        }
        self.generators = generators_of(dataloader)
        self.tokenizer = model.pipeline.checkpoint.pair_tokenizer(remembers=True)
        self.optimizer = make_optimizer(
            model.model, options.optimizer_class, options.optimizer_params, options.weight_decay
        )
        number_of_steps = self.steps_per_epoch * options.epochs
        self.scheduler = get_scheduler(options.scheduler, self.optimizer, options.warmup_steps, number_of_steps)
        if processes.is_main and warms_up_to_the_end(options.scheduler, options.warmup_steps, number_of_steps):
            warmup = f"warmup_steps is {options.warmup_steps}, but there are only {number_of_steps} steps"
            logger.warning("%s: the learning rate does not reach its full value; a tenth is usual", warmup)
        self.stepper = Stepper(model, self.tokenizer, self.optimizer, self.scheduler, options, processes)
        self.evaluation = Evaluation(model, options)
        self.threads = SharedThreads()
        self.tracker = make_tracker(options.report_to if processes.is_main else "none")
        self.shown: dict[str, Any] = {}  # beside the bar
        self.epoch = 0
        self.step = 0  # within the epoch
        self.epoch_random_state: dict[str, Any] | None = None  # at its beginning; the order of examples follows from it
        self.resumed_random_state: dict[str, Any] | None = None

    @property
    def total_steps(self) -> int:
        """Steps since the beginning."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def facts(self) -> dict[str, Any]:
        """What the model's card says of the run."""
        options = self.options
        rates = sorted({group["initial_lr"] for group in self.optimizer.param_groups}, reverse=True)
        return {
            "epochs": options.epochs,
            "steps": self.steps_per_epoch * options.epochs,
            "batches per step": self.batches_per_step,
            "examples per batch": getattr(self.dataloader, "batch_size", None) or "various",
            "loss": type(self.stepper.loss_fct).__name__,
            "optimizer": options.optimizer_class.__name__,
            "learning rate": ", ".join(f"{rate:g}" for rate in rates),
            "schedule": f"{options.scheduler}, {options.warmup_steps} steps of warm-up",
            "weight decay": options.weight_decay,
            "mixed precision": "yes" if options.use_amp else "no",
            "seed": "none" if options.seed is None else options.seed,
        }

    def train(self) -> None:
        """Runs to the end."""
        bar = progress_bar(
            self.options.show_progress_bar and self.processes.is_main,
            total=self.steps_per_epoch * self.options.epochs,
            description="Training",
            unit="steps",
        )
        self.model.model.zero_grad()
        try:
            with bar, self.threads:
                bar.update(self.total_steps)
                while self.epoch < self.options.epochs:
                    self._train_epoch(bar)
                    self.epoch, self.step, self.epoch_random_state = self.epoch + 1, 0, None
        finally:
            self.tracker.close()
            self.stepper.encoder.zero_gradients(for_good=True)
            self.model.model.eval()

    def _train_epoch(self, bar: Any) -> None:
        self.model.model.train()
        if self.epoch_random_state is None:
            self.epoch_random_state = self.processes.main_value(random_state(self.generators))
        # Examples come from a stream of random numbers that is the same for all processes, everything else from others.
        set_random_state(self.epoch_random_state, self.generators)
        examples_stream = RandomStream(self.epoch_random_state)
        if self.resumed_random_state is None:
            torch.manual_seed(int(torch.randint(2**62, ())) + self.processes.rank)
        else:
            set_random_state(self.resumed_random_state)
            self.resumed_random_state = None
        with closing(self._batches(examples_stream)) as batches:
            waiting = islice(enumerate(batches), self.step * self.batches_per_step, None)
            while group := list(islice(waiting, self.batches_per_step)):
                own = self.processes.share(group)
                places = [f"step {self.total_steps + 1}, epoch {self.epoch}, batch {number}" for number, _ in own]
                loss = self.stepper.step([examples for _, examples in own], places)
                self.step += 1
                self.threads.update()
                self._after_step(loss, bar)
        self._evaluate(-1, bar)

    def _evaluate(self, steps: int, bar: Any) -> None:
        if self.processes.is_main:
            score = self.evaluation.run(self.epoch, steps)
            if score is not None:
                self.tracker.log({"score": score}, self.total_steps)
                self.shown |= {"score": f"{score:.4f}", "best": f"{self.evaluation.best_score:.4f}"}
                bar.set_postfix(self.shown)
        self.processes.wait()

    def _batches(self, stream: RandomStream) -> Generator[Sequence[Any], None, None]:
        """The epoch's batches, their texts tokenised ahead."""
        with stream:
            seed = int(torch.randint(2**31, ()))
        grouping = self.options.length_grouping
        with closing(prepared(stream.items(self.dataloader), self._tokenize, WINDOW if grouping else AHEAD)) as batches:
            yield from grouped_by_length(batches, self._length_of, seed) if grouping else batches

    def _tokenize(self, examples: Any) -> None:
        if not is_sequence(examples):
            raise TypeError(f"train_dataloader: expected batches of InputExample, got {describe(examples)}")
        self.tokenizer.remember(text for example in examples for text in texts_of(example))

    def _length_of(self, example: Any) -> int:
        return sum(self.tokenizer.size_of(text) for text in texts_of(example))

    def _after_step(self, loss: float, bar: Any) -> None:
        options = self.options
        self.shown |= {"epoch": self.epoch + 1, "loss": f"{loss:.4f}"}
        bar.set_postfix(self.shown, refresh=False)
        bar.update()
        if options.logging_steps > 0 and self.total_steps % options.logging_steps == 0:
            rate = float(self.scheduler.get_last_lr()[0])
            log = logger.info if self.processes.is_main else logger.debug
            log("step %d, epoch %d: loss %.4f, learning rate %.3g", self.total_steps, self.epoch, loss, rate)
            self.tracker.log({"loss": loss, "learning_rate": rate}, self.total_steps)
        if options.evaluation_steps > 0 and self.step % options.evaluation_steps == 0:
            self._evaluate(self.step, bar)
        if options.checkpoint_path is not None and self.total_steps % options.checkpoint_save_steps == 0:
            self._save(options.checkpoint_path)

    def _save(self, folder: Path) -> None:
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "best_score": self.evaluation.best_score,
            "has_saved": self.evaluation.has_saved,
            "output_path": str(self.options.output_path),
            "epoch_random_state": self.epoch_random_state,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "random_states": self.processes.gather(random_state()),
            "kind": self.kind,
        }
        if self.processes.is_main:
            save_state(self.model, folder, self.total_steps, self.options.checkpoint_save_total_limit, state)
        self.processes.wait()

    def resume(self, folder: Path) -> None:
        """Goes back to where a checkpoint was saved."""
        state = load_state(folder)
        if state["kind"] != self.kind:
            names = [name for name, value in self.kind.items() if state["kind"].get(name) != value]
            theirs, ours = ({name: run.get(name) for name in names} for run in (state["kind"], self.kind))
            raise ValueError(f"resume_from_checkpoint: {folder} is of a run with {theirs}, not {ours}")
        self.optimizer.load_state_dict(state["optimizer"])
        load_weights(self.model, folder, state)
        self.scheduler.load_state_dict(state["scheduler"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["epoch"], state["step"]
        if state["output_path"] == str(self.options.output_path):  # another one has no model yet
            self.evaluation.best_score, self.evaluation.has_saved = state["best_score"], state["has_saved"]
        self.epoch_random_state = state["epoch_random_state"]
        self.resumed_random_state = state["random_states"][self.processes.rank]
        logger.info("Going on after step %d, from %s", self.total_steps, folder)


def what_is_kept(run: Run) -> str:
    """What an interrupted run leaves, and how to go on."""
    options = run.options
    sentences = [f"fit was interrupted after {run.total_steps} of {run.steps_per_epoch * options.epochs} steps"]
    latest = None if options.checkpoint_path is None else resume_folder(True, options.checkpoint_path)
    if latest is not None:
        sentences.append(f"fit with resume_from_checkpoint=True goes on from {latest}")
    if run.evaluation.has_saved:
        sentences.append(f"{options.output_path} has the best model so far")
    if len(sentences) == 1:
        sentences.append("nothing is saved; model.save keeps what it has learned, checkpoint_path lets a run go on")
    return "; ".join(sentences)


@contextmanager
def raw_examples(dataloader: Any) -> Iterator[None]:
    """Lets a DataLoader hand out lists of examples as they are, for a while."""
    if not hasattr(dataloader, "collate_fn"):
        yield
        return
    before = dataloader.collate_fn
    dataloader.collate_fn = list
    try:
        yield
    finally:
        dataloader.collate_fn = before


@contextmanager
def checkpointed_gradients(model: TrainableModel, wanted: bool) -> Iterator[None]:
    """Lets the backward pass compute each layer's activations again, for a while."""
    module = model.model
    changes = wanted and not any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
    if changes:
        switch_checkpointing(module, "enable")
    try:
        yield
    finally:
        if changes:
            switch_checkpointing(module, "disable")


def switch_checkpointing(module: Any, action: str) -> None:
    """Calls the module's method for it, which transformers has renamed."""
    names = [f"{prefix}_checkpointing_{action}" for prefix in ("activation", "gradient")]
    getattr(module, next(name for name in names if hasattr(module, name)))()


def texts_of(example: Any) -> list[str]:
    """The texts of an example; none where it is no example, which the loss reports."""
    texts: Any = getattr(example, "texts", None)
    return [text for text in texts if isinstance(text, str)] if is_sequence(texts) else []


def generators_of(dataloader: Any) -> list[torch.Generator]:
    """The generators that a DataLoader and its samplers bring along, each once."""
    batch_sampler = getattr(dataloader, "batch_sampler", None)
    owners = (dataloader, getattr(dataloader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())
