"""CrossEncoder: pairs of texts in, scores out. Orchestration only; each step is a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastce import legacy, scoring
from fastce.attributes import Attributes
from fastce.backends.base import check_backend
from fastce.checkpoints import adapters
from fastce.checkpoints.loading import load_checkpoint, precision_from_dtype
from fastce.checkpoints.network import default_length, head_names
from fastce.checkpoints.source import Source, errors_of_files
from fastce.checks import check_positive, check_precision, check_text
from fastce.environment import default_device
from fastce.inputs import check_texts, choose_prompt, split_pairs
from fastce.model_card import ModelCardData
from fastce.packing import MAX_BATCH_TOKENS
from fastce.pipeline import BatchLimits, Pipeline, Window
from fastce.pools import Pool, PoolMixin, chosen_pool
from fastce.processing import max_length_of
from fastce.progress import progress_bar
from fastce.ranking import best
from fastce.rescoring import Rescorer
from fastce.save_mixin import SaveMixin
from fastce.spec import Precision
from fastce.threads import chosen_num_threads
from fastce.torch_module import TorchModule
from fastce.training.fit_mixin import FitMixin


class CrossEncoder(FitMixin, PoolMixin, SaveMixin, Attributes, TorchModule):
    """Scores pairs of texts with a Hugging Face sequence-classification model.

    Args:
        model_name_or_path: A directory with a saved model, or the id of one on the Hugging Face Hub. A base model
            without a classification head gets a fresh one, to be trained.
        num_labels: Outputs of the head; None takes the model's own, or 1 for a base model.
        max_length: Tokens of a pair at most, special ones included; None takes the tokenizer's limit. Capped by the
            model's positions, with a warning.
        device: Where to run, such as `"cpu"` or `"cuda:0"`; None takes the best one at hand.
        activation_fn: Turns logits into scores: a function, or the name of a class of `torch.nn` such as `"sigmoid"`.
            None takes the model's own, else sigmoid for one label and identity for several.
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
        model_card_data: What the model card shall say when the model is saved, such as its language and licence: an
            object with attributes of `fastce.model_card.ModelCardData`.
        backend: `"auto"` for the fastest one that can run the model, or a name of `available_backends`, which then
            never gives way to another.
        precision: `"fp32"`, `"bf16"`, `"fp16"`, `"int8"` or, on newer GPUs, `"fp8"`, or torch's word for it: the
            arithmetic of `predict` and `rank`. Training and saving are in float32 always.
        num_threads: CPU threads for scoring; None follows `fastce.set_num_threads` and `FASTCE_NUM_THREADS`, else all.
        deterministic: Whether scores shall be the same, bit for bit, whatever a pair is batched with. The C++ engine's
            are anyway; other engines, whose last bits may differ otherwise, compute a pair at a time then.

    Attributes:
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
        activation_fn: scoring.ActivationFn | str | None = None,
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
        model_card_data: Any = None,
        backend: str = "auto",
        precision: Precision = "fp32",
        num_threads: int | None = None,
        deterministic: bool = False,
    ):
        super().__init__()
        model_kwargs = {} if model_kwargs is None else model_kwargs
        asked = precision_from_dtype(model_kwargs.get("dtype", model_kwargs.get("torch_dtype")))
        options = {
            "cache_dir": cache_folder,
            "trust_remote_code": trust_remote_code,
            "revision": "main" if revision is None else revision,
            "local_files_only": local_files_only,
            "token": token,
        }
        source = Source(str(model_name_or_path), options)
        num_labels = None if num_labels is None else check_positive(num_labels, "num_labels")
        with errors_of_files(source.name):
            checkpoint = load_checkpoint(
                source,
                num_labels=num_labels,
                model_kwargs=model_kwargs,
                processor_kwargs={} if processor_kwargs is None else processor_kwargs,
                config_kwargs={} if config_kwargs is None else config_kwargs,
            )
        if num_threads is not None:
            check_positive(num_threads, "num_threads")
        chosen_num_threads()  # a wrong environment variable says so now
        backend, precision = check_backend(backend), asked or check_precision(precision)
        with errors_of_files(source.name):
            self.pipeline = Pipeline(checkpoint, backend, precision, num_threads, deterministic=bool(deterministic))
        stored = checkpoint.metadata
        self.prompts = dict(stored.prompts) | dict({} if prompts is None else prompts)
        self.default_prompt_name = stored.default_prompt_name if default_prompt_name is None else default_prompt_name
        if activation_fn is None:
            with errors_of_files(source.name):
                activation_fn = scoring.default_activation(stored.activation_fn, self.num_labels)
        self.activation_fn = activation_fn
        self.model_card_data = ModelCardData.of(model_card_data)
        if self.model_card_data.base_model is None and not Path(source.name).exists():
            self.model_card_data.set_base_model(source.name, revision)
        vars(self)["trust_remote_code"] = trust_remote_code
        self._max_length = 0
        self.max_length = default_length(self.tokenizer, self.config) if max_length is None else max_length
        self.to(default_device() if device is None else device)
        with errors_of_files(source.name, but=(ValueError, OSError)):
            self.pipeline.built_encoder()  # broken weights, and a backend that can't run the model, say so now

    @legacy.method_arguments(legacy.PREDICT_NAMES, legacy.PREDICT_WITHOUT_EFFECT, legacy.PREDICT_PLACES)
    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: scoring.ActivationFn | str | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | Sequence[str | torch.device] | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        precision: Precision | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Scores pairs of texts. A score depends on its own pair alone, whatever it is batched with.

        Args:
            inputs: One pair of texts, or any iterable of pairs.
            prompt_name: Which stored prompt to put before each first text; in a chat template it is the system
                message, the instruction.
            prompt: A prompt itself; wins over `prompt_name`.
            batch_size: Pairs per batch at most; None leaves it to `max_batch_tokens`.
            show_progress_bar: Whether to show a bar; None shows one where fastce's logger is at INFO or below.
            activation_fn: Turns logits into scores, for this call; see the attribute.
            apply_softmax: Whether the scores of several labels shall sum to 1.
            convert_to_numpy: Return a NumPy array rather than a list of tensors.
            convert_to_tensor: Return one tensor; wins over `convert_to_numpy`.
            device: Move the model there first. A list of devices scores in a process on each, started for this call.
            pool: Processes that score, from `start_multi_process_pool`.
            chunk_size: Pairs that a process of a pool gets at once.
            max_batch_tokens: Tokens per batch at most; pairs of similar length are batched together, without padding.
            precision: The arithmetic of this call; None: the model's own.
            processing_kwargs: Another length for this call, such as `{"text": {"max_length": 128}}`.

        Returns:
            float32 scores in the order of `inputs`: `[num_pairs]` for one label, else `[num_pairs, num_labels]`. A
            single pair gives a scalar, or `[num_labels]`.

        Raises:
            TypeError: Something in `inputs` is not a text; the message says where.
            ValueError: A pair has not two texts, or an argument is out of range.
        """
        limits = BatchLimits.checked(batch_size, max_batch_tokens)
        window, single = self._window(inputs, prompt_name, prompt)
        own = None if precision is None else check_precision(precision)
        chosen = self.activation_fn if activation_fn is None else scoring.check_activation(activation_fn)
        total = len(window.first)
        with (
            progress_bar(show_progress_bar, total=total, description="Scoring", unit="pairs") as progress,
            chosen_pool(self, pool, device, chunk_size) as processes,
        ):
            if processes is None:
                length = max_length_of(processing_kwargs, self.max_length, self.config)
                tokenized = self.pipeline.tokenized(window, length)
                logits = self.pipeline.compute(tokenized, limits, progress.update, own)
            elif processing_kwargs is not None:
                raise ValueError("processing_kwargs: a pool's processes have their model's own length")
            elif own is None:
                logits = processes.logits(window, chunk_size, limits, progress.update)
            else:
                raise ValueError(f"precision: a pool's processes score in their model's own, not in {own}")
        with torch.inference_mode():
            scores = scoring.scores_from_logits(logits, chosen, bool(apply_softmax))
        return scoring.convert(
            scores, convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor, single=single
        )

    def stream(
        self,
        windows: Iterable[Sequence[tuple[str, str]]],
        *,
        batch_size: int | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Iterator[np.ndarray]:
        """Scores windows of pairs one after the other, each while the next one is read and tokenised.

        For what does not fit into memory: no more than two windows are in it.

        Args:
            windows: Lists of pairs of texts, some thousand each. What taking one raises is raised behind the scores of
                the one before.
            batch_size: As for `predict`.
            max_batch_tokens: As for `predict`.
            advance: Called with numbers of pairs that have been computed, such as the `update` of a progress bar.

        Yields:
            For each window what `predict` returns for its pairs, with the default prompt and activation function.

        Raises:
            TypeError: Something in a window is not a text; the message says where.
            ValueError: A pair has not two texts, or an argument is out of range.
        """
        limits = BatchLimits.checked(batch_size, max_batch_tokens)
        texts = (self._window(window, None, None)[0] for window in windows)
        for logits in self.pipeline.stream(texts, self.max_length, limits, advance):
            with torch.inference_mode():
                scores = scoring.scores_from_logits(logits, self.activation_fn, apply_softmax=False)
            yield scores.cpu().numpy()

    def _window(self, inputs: Any, prompt_name: str | None, prompt: str | None) -> tuple[Window, bool]:
        """The pairs with their prompt, and whether the input was a single pair."""
        self.check_hooks()
        first, second, single = split_pairs(inputs)
        return Window(first, second, self.prompt_of(prompt_name, prompt)), single

    def prompt_of(self, prompt_name: str | None, prompt: str | None) -> str | None:
        """The prompt that `predict` takes for these arguments, or None."""
        name = self.default_prompt_name if prompt_name is None else prompt_name
        return choose_prompt(self.prompts, prompt, name) or None

    @legacy.method_arguments(legacy.RANK_NAMES, legacy.RANK_WITHOUT_EFFECT)
    def rank(
        self,
        query: str,
        documents: Any,
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: scoring.ActivationFn | str | None = None,
        device: str | torch.device | Sequence[str | torch.device] | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        precision: Precision | None = None,
        rescore: Precision | None = None,
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
            max_batch_tokens: As for `predict`.
            precision: As for `predict`.
            rescore: A precision, such as `"fp32"` behind `precision="int8"`: documents that may be among the best
                `top_k` are scored again in it, so that these and their scores are its. Which ones may is told by the
                errors of the fast scores, measured as it goes; `fastce.rescoring` logs the bound, and how many were
                scored again, at INFO.

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
        if rescore is not None and top_k is None:
            raise ValueError("rescore: needs top_k; without it all scores would be those of the slower precision")
        if rescore is None:
            scores = self.predict(
                [(query, text) for text in texts],
                prompt_name=prompt_name,
                prompt=prompt,
                batch_size=batch_size,
                show_progress_bar=show_progress_bar,
                activation_fn=activation_fn,
                device=device,
                pool=pool,
                chunk_size=chunk_size,
                max_batch_tokens=max_batch_tokens,
                precision=precision,
            )
            order = best(scores, np.zeros(len(scores)), top_k)
            scores = scores[order]
        else:
            if pool is not None or isinstance(device, list | tuple):
                raise ValueError("rescore: is for the model in this process, not for pools")
            if device is not None:
                self.to(device)
            chosen = self.activation_fn if activation_fn is None else scoring.check_activation(activation_fn)
            fast = precision and check_precision(precision)
            rescorer = Rescorer(self.pipeline, check_precision(rescore, "rescore"), chosen, fast)
            limits = BatchLimits.checked(batch_size, max_batch_tokens)
            window, _ = self._window([(query, text) for text in texts], prompt_name, prompt)
            tokenized, groups = self.pipeline.tokenized(window, self.max_length), np.zeros(len(texts), dtype=np.int64)
            with progress_bar(show_progress_bar, total=len(texts), description="Scoring", unit="pairs") as progress:
                order, scores, _ = rescorer.top(tokenized, groups, int(top_k or 0), limits, progress.update)
        ranking = [{"corpus_id": at, "score": score} for at, score in zip(order.tolist(), scores.tolist(), strict=True)]
        return [entry | {"text": texts[entry["corpus_id"]]} for entry in ranking] if return_documents else ranking

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

    def __repr__(self) -> str:
        return f"CrossEncoder({self.config._name_or_path!r}, {self.pipeline.description})"
