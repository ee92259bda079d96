"""`fit`, as a part of `CrossEncoder`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastce import legacy
from fastce.scoring import ActivationFn
from fastce.training.model import TrainableModel
from fastce.training.options import FitOptions


class FitMixin:
    """Adds training to a model."""

    @legacy.method_arguments({}, ())
    def fit(
        self: TrainableModel,
        train_dataloader: Any,
        evaluator: Callable[..., Any] | None = None,
        epochs: int = 1,
        loss_fct: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        activation_fct: ActivationFn | str | None = None,
        scheduler: str = "WarmupLinear",
        warmup_steps: int = 10000,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_params: Mapping[str, Any] | None = None,
        weight_decay: float = 0.01,
        evaluation_steps: int = 0,
        output_path: str | Path | None = None,
        save_best_model: bool = True,
        max_grad_norm: float = 1,
        use_amp: bool = False,
        callback: Callable[[float, int, int], None] | None = None,
        show_progress_bar: bool = True,
        checkpoint_path: str | Path | None = None,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        *,
        resume_from_checkpoint: bool | str | Path = False,
        gradient_accumulation_steps: int = 1,
        gradient_checkpointing: bool = False,
        length_grouping: bool = False,
        seed: int | None = None,
        logging_steps: int = 0,
        report_to: str = "none",
    ) -> None:
        """Fine-tunes the model, as `fit` of sentence-transformers 2.2 does.

        Texts are tokenised ahead of the steps, each distinct one once. A step is one of the optimizer's. It takes
        torch's threads, or as many of them as other processes leave CPUs to; in layers whose widths are no multiples of
        16, the last bit of a product of torch's may follow their number.

        Args:
            train_dataloader: A DataLoader, or any sized iterable of lists, of `InputExample`. No `collate_fn` is used.
            evaluator: Called as `evaluator(model, output_path=, epoch=, steps=)`; returns a number, higher for a better
                model, or a dictionary with one under the evaluator's `primary_metric`.
            epochs: Passes over the data.
            loss_fct: One of `fastce.losses`, or any function of logits and labels. None takes binary cross-entropy for
                one label; for several, cross-entropy where the labels are class numbers, and where they are lists,
                binary cross-entropy, or squared errors if the config's `problem_type` is `"regression"`.
            activation_fct: Applied to the logits before the loss; None applies nothing.
            scheduler: A name of `fastce.training.schedulers.SCHEDULERS`, in any case.
            warmup_steps: Steps over which the learning rate rises.
            optimizer_class: The optimizer; torch's AdamW and Adam run fused unless `optimizer_params` say otherwise.
            optimizer_params: Its arguments; None means `{"lr": 2e-5}`.
            weight_decay: Weight decay of everything but biases and LayerNorm.
            evaluation_steps: Evaluate also after so many steps; 0 evaluates after each epoch only.
            output_path: Where to save.
            save_best_model: Save whenever an evaluation is the best so far. Without this, or without an evaluator, the
                model is saved at the end.
            max_grad_norm: Gradients are scaled down to this norm.
            use_amp: Mixed precision: bfloat16, or float16 with loss scaling on GPUs without bfloat16.
            callback: Called as `callback(score, epoch, steps)` after each evaluation.
            show_progress_bar: Whether to show a bar, with the loss, the latest score and the best one.
            checkpoint_path: Where to keep checkpoints, `checkpoint-<step>` each; None keeps none.
            checkpoint_save_steps: Steps between two of them.
            checkpoint_save_total_limit: How many to keep, the latest ones; 0 keeps all.
            resume_from_checkpoint: A checkpoint to go on from, or True for the latest one in `checkpoint_path`, if any.
                The run ends as if it had never stopped, unless the dataset keeps a state of its own.
            gradient_accumulation_steps: Batches whose gradients make one step.
            gradient_checkpointing: Whether to compute activations twice rather than keep them, to save memory.
            length_grouping: Whether to make batches of similar length out of every 32 that the DataLoader gives; each
                example still occurs once an epoch.
            seed: Sets the generators of Python, NumPy and PyTorch first. A fresh head is there already, drawn when the
                model was made: for equal runs, set them before that too, with `transformers.set_seed`.
            logging_steps: Log the loss every so many steps, to the logger `fastce.training` at INFO; 0 logs nothing, or
                every 50 steps with `report_to`.
            report_to: Where losses and scores go besides: `"tensorboard"`, `"wandb"` or `"none"`.

        Raises:
            TypeError: An example is not an `InputExample` with the texts that the loss wants; the message says which.
            ValueError: An argument is out of range, or the loss is not a number.
            OSError: `output_path` or `checkpoint_path` can't be written; found before training.
            KeyboardInterrupt: Somebody stopped the run; the message says what is kept and how to go on.
        """
        options = FitOptions.from_arguments(locals())
        from fastce.training.fit import fit  # seconds, where much is installed, that scoring need not wait for

        fit(self, train_dataloader, options)
