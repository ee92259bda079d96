"""CrossEncoder: pairs of texts in, scores out. Orchestration only; each step is a module of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastce import legacy, scoring
from fastce.checkpoints import adapters
from fastce.checkpoints.loading import load_checkpoint, precision_from_dtype
from fastce.checkpoints.metadata import Metadata
from fastce.checkpoints.network import capped_length, head_names
from fastce.checkpoints.saving import push_checkpoint, save_checkpoint
from fastce.checkpoints.source import Source
from fastce.inputs import check_positive, check_text, check_texts, choose_prompt, split_pairs
from fastce.pipeline import Pipeline
from fastce.settings import default_device, default_num_threads
from fastce.spec import Precision
from fastce.training.fit import fit
from fastce.training.options import FitOptions


class CrossEncoder:
    """Scores pairs of texts with a Hugging Face sequence-classification model.

    Args:
        model_name_or_path: A directory with a saved model, or the id of one on the Hugging Face Hub. A base model
            without a classification head gets a fresh one, to be trained.
        num_labels: Outputs of the head; None takes the model's own, or 1 for a base model.
        max_length: Tokens of a pair at most, special ones included; None takes the tokenizer's limit. Capped by the
            model's positions, with a warning.
        device: Where to run, such as `"cpu"` or `"cuda:0"`; None takes the best one at hand.
        activation_fn: Turns logits into scores; None takes the model's own, else sigmoid for one label and identity
            for several.
        cache_folder: Where files from the Hub are kept.
        trust_remote_code: Whether a model may bring Python code of its own for transformers to run.
        revision: Branch, tag or commit on the Hub.
        local_files_only: Whether to stay off the network.
        token: Access token for the Hub.
        model_kwargs: Further arguments for the module's `from_pretrained`. A `dtype` in it sets the precision.
        processor_kwargs: Further arguments for the tokenizer's `from_pretrained`.
        config_kwargs: Further arguments for the config's `from_pretrained`.
        prompts: Prompt names to texts that `predict` can put before the first text of each pair.
        default_prompt_name: The prompt to use where `predict` is asked for none.
        backend: `"auto"` for the fastest one that can run the model, or a name of `available_backends`, which then
            never gives way to another.
        precision: `"fp32"`, `"bf16"`, `"fp16"` or `"int8"`: the arithmetic of `predict` and `rank`. Training and saving
            are in float32 always.
        num_threads: CPU threads for scoring; None follows `fastce.set_num_threads` and `FASTCE_NUM_THREADS`, else all.

    Attributes:
        activation_fn: Turns logits into scores.
        prompts: Prompt names to texts.
        default_prompt_name: The prompt to use where none is asked for, or None.
        pipeline: What computes the logits, with the backend, the precision and the number of threads.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: The model's files are broken or of a kind that fastce does not run; the message says which and why.
    """

    @legacy.constructor_arguments
    def __init__(
        self,
        model_name_or_path: str | Path,
        *,
        num_labels: int | None = None,
        max_length: int | None = None,
        device: str | torch.device | None = None,
        activation_fn: scoring.ActivationFn | None = None,
        cache_folder: str | Path | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        backend: str = "auto",
        precision: Precision = "fp32",
        num_threads: int | None = None,
    ):
        model_kwargs = model_kwargs or {}
        asked = precision_from_dtype(model_kwargs.get("dtype", model_kwargs.get("torch_dtype")))
        options = {
            "cache_dir": cache_folder,
            "trust_remote_code": trust_remote_code,
            "revision": revision or "main",
            "local_files_only": local_files_only,
            "token": token,
        }
        checkpoint = load_checkpoint(
            Source(str(model_name_or_path), options),
            num_labels=None if num_labels is None else check_positive(num_labels, "num_labels"),
            model_kwargs=model_kwargs,
            processor_kwargs=processor_kwargs or {},
            config_kwargs=config_kwargs or {},
        )
        if num_threads is not None:
            check_positive(num_threads, "num_threads")
        default_num_threads()  # a wrong environment variable says so now
        self.pipeline = Pipeline(checkpoint, backend, asked or precision, num_threads)
        stored = checkpoint.metadata
        self.prompts = dict(stored.prompts) | dict(prompts or {})
        self.default_prompt_name = default_prompt_name or stored.default_prompt_name
        self.activation_fn = activation_fn or scoring.default_activation(stored.activation_fn, self.num_labels)
        self.model_card_data = legacy.ModelCardData()
        self._max_length = 0
        self.max_length = self.tokenizer.model_max_length if max_length is None else max_length
        self.to(device or default_device())
        self.pipeline.built_encoder()  # broken weights, and a backend that can't run the model, say so now

    @legacy.method_arguments(legacy.PREDICT_NAMES, legacy.PREDICT_WITHOUT_EFFECT, legacy.PREDICT_PLACES)
    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: scoring.ActivationFn | None = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        pool: object = None,
        chunk_size: int | None = None,
    ) -> Any:
        """Scores pairs of texts. A score depends on its own pair alone, whatever it is batched with.

        Args:
            inputs: One pair of texts, or any iterable of pairs.
            prompt_name: Which stored prompt to put before each first text.
            prompt: A prompt itself; wins over `prompt_name`.
            batch_size: Pairs per batch at most; pairs of similar length are batched together.
            show_progress_bar: Whether to show a bar; None shows one where fastce's logger is at INFO or below.
            activation_fn: Turns logits into scores, for this call.
            apply_softmax: Whether the scores of several labels shall sum to 1.
            convert_to_numpy: Return a NumPy array rather than a list of tensors.
            convert_to_tensor: Return one tensor; wins over `convert_to_numpy`.
            device: Move the model there first.
            pool: Has no effect: one process uses every core.
            chunk_size: Has no effect, as `pool`.

        Returns:
            float32 scores in the order of `inputs`: `[num_pairs]` for one label, else `[num_pairs, num_labels]`. A
            single pair gives a scalar, or `[num_labels]`.

        Raises:
            TypeError: Something in `inputs` is not a text; the message says where.
            ValueError: A pair has not two texts, or an argument is out of range.
        """
        first, second, single = split_pairs(inputs)
        batch_size = check_positive(batch_size, "batch_size")
        chosen_prompt = choose_prompt(
            self.prompts, prompt, self.default_prompt_name if prompt_name is None else prompt_name
        )
        if pool is not None or chunk_size is not None:
            warnings.warn("predict: pool and chunk_size have no effect, one process uses every core", stacklevel=3)
        if device is not None:
            self.to(device)
        if chosen_prompt:
            first = [chosen_prompt + text for text in first]
        logits = self.pipeline.logits(
            first, second, max_length=self.max_length, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        with torch.inference_mode():
            scores = scoring.scores_from_logits(logits, activation_fn or self.activation_fn, apply_softmax)
        return scoring.convert(
            scores, convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor, single=single
        )

    @legacy.method_arguments(legacy.RANK_NAMES, legacy.RANK_WITHOUT_EFFECT)
    def rank(
        self,
        query: str,
        documents: Any,
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: scoring.ActivationFn | None = None,
        device: str | torch.device | None = None,
        pool: object = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """Ranks documents by their score with a query.

        Args:
            query: The query.
            documents: The documents, any iterable of texts.
            top_k: How many to return; None returns all.
            return_documents: Whether to return the texts too.
            prompt_name: As for `predict`.
            prompt: As for `predict`.
            batch_size: As for `predict`.
            show_progress_bar: As for `predict`.
            activation_fn: As for `predict`.
            device: As for `predict`.
            pool: As for `predict`.
            chunk_size: As for `predict`.

        Returns:
            Dictionaries with `corpus_id` (position in `documents`), `score` and, if asked for, `text`; best first,
            ties in the order of `documents`.

        Raises:
            TypeError: Something is not a text; the message says where.
            ValueError: The model has several labels, or an argument is out of range.
        """
        if self.num_labels != 1:
            raise ValueError(f"rank needs a model with one label, this one has {self.num_labels}; use predict")
        if top_k is not None and top_k < 0:
            raise ValueError(f"top_k: expected None or a number from 0 up, got {top_k}")
        check_text(query, "query")
        texts = check_texts(documents, "documents")
        scores: list[float] = self.predict(
            [(query, text) for text in texts],
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            convert_to_tensor=True,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
        ).tolist()
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:top_k]
        extra = {index: {"text": texts[index]} for index in order} if return_documents else {}
        return [{"corpus_id": index, "score": scores[index]} | extra.get(index, {}) for index in order]

    def fit(
        self,
        train_dataloader: Any,
        evaluator: Callable[..., Any] | None = None,
        epochs: int = 1,
        loss_fct: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        activation_fct: scoring.ActivationFn | None = None,
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

        Texts are tokenised ahead of the steps, each distinct one once. A step is one of the optimizer's.

        Args:
            train_dataloader: A DataLoader, or any sized iterable of lists, of `InputExample`. No `collate_fn` is used.
            evaluator: Called as `evaluator(model, output_path=, epoch=, steps=)`; returns a number, higher for a better
                model, or a dictionary with one under the evaluator's `primary_metric`.
            epochs: Passes over the data.
            loss_fct: One of `fastce.losses`, or any function of logits and labels; None takes binary cross-entropy for
                one label, cross-entropy for several.
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
            show_progress_bar: Whether to show bars.
            checkpoint_path: Where to keep checkpoints, `checkpoint-<step>` each; None keeps none.
            checkpoint_save_steps: Steps between two of them.
            checkpoint_save_total_limit: How many to keep, the latest ones; 0 keeps all.
            resume_from_checkpoint: A checkpoint to go on from, or True for the latest one in `checkpoint_path`, if any.
                The run ends as if it had never stopped, unless the dataset keeps a state of its own.
            gradient_accumulation_steps: Batches whose gradients make one step.
            gradient_checkpointing: Whether to compute activations twice rather than keep them, to save memory.
            length_grouping: Whether to make batches of similar length out of every 32 that the DataLoader gives; each
                example still occurs once an epoch.
            seed: Sets the generators of Python, NumPy and PyTorch first.
            logging_steps: Log the loss every so many steps, to the logger `fastce.training` at INFO; 0 logs nothing, or
                every 50 steps with `report_to`.
            report_to: Where losses and scores go besides: `"tensorboard"`, `"wandb"` or `"none"`.

        Raises:
            TypeError: An example is not an `InputExample` with the texts that the loss wants; the message says which.
            ValueError: An argument is out of range, or the loss is not a number.
            OSError: `output_path` or `checkpoint_path` can't be written; found before training.
        """
        fit(self, train_dataloader, FitOptions.from_arguments(locals()))

    def save(self, path: str | Path, **options: Any) -> None:
        """Writes the model so that transformers, sentence-transformers and fastce load it. Adapters are merged.

        Args:
            path: A directory; made if missing. An interrupted save leaves the model that was in it.
            **options: Options of sentence-transformers' method, such as `safe_serialization`; without effect.

        Raises:
            OSError: The directory can't be written.
        """
        name = scoring.activation_name(self.activation_fn)
        metadata = Metadata(activation_fn=name, prompts=self.prompts, default_prompt_name=self.default_prompt_name)
        save_checkpoint(path, self.model, self.tokenizer, metadata)

    save_pretrained = save

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the model, as `save` writes it, to the Hugging Face Hub.

        Args:
            repo_id: Name of the repository; made if missing.
            **options: Options of `fastce.checkpoints.saving.push_checkpoint`, such as `token` and `private`.

        Returns:
            Address of the commit.
        """
        return push_checkpoint(self.save, repo_id, **options)

    def add_adapter(self, config: Any, name: str = "default") -> None:
        """Adds an adapter of PEFT, such as LoRA, which `fit` trains in place of the weights; needs the package peft.

        `model` is a `PeftModel` from then on: its `save_pretrained` writes the adapter alone, its `set_adapter` and
        `disable_adapter` choose. A `PeftModel` of your own can be assigned to `model` as well.

        Args:
            config: A `PeftConfig`. The head is trained too, unless its `modules_to_save` says what is.
            name: What to call the adapter, which becomes the active one.

        Raises:
            ImportError: PEFT is not installed.
            TypeError: The config is none of PEFT's.
            ValueError: There is an adapter of that name already, or PEFT can't add this one, or it can't be merged.
        """
        self.model = adapters.add_adapter(self.model, config, name, head_names(self.model))

    def to(self, device: str | torch.device) -> CrossEncoder:
        """Moves the model to a device, and returns it."""
        self.pipeline.checkpoint.to(torch.device(device))
        return self

    @property
    def model(self) -> Any:
        """The Hugging Face module, with float32 parameters; made from the file when it is first asked for."""
        return self.pipeline.checkpoint.module

    @model.setter
    def model(self, module: Any) -> None:
        self.pipeline.checkpoint.module = module

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.pipeline.checkpoint.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.pipeline.checkpoint.tokenizer = tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pipeline.checkpoint.device

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        return self.pipeline.checkpoint.config

    @property
    def num_labels(self) -> int:
        """Number of logits per pair."""
        return int(self.config.num_labels)

    @property
    def max_length(self) -> int:
        """Tokens of a pair at most, special ones included. Setting it beyond the model's positions warns and caps."""
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self._max_length = capped_length(check_positive(value, "max_length"), self.config)
        self.tokenizer.model_max_length = self._max_length  # saved with the tokenizer
