"""fastce's engine inside of sentence-transformers' own CrossEncoder: `accelerate`, `decelerate`, and a patch for all.

Only the way from pairs to scores is replaced, one method of a model. Everything else stays the model's own: its
modules, losses, Trainer, saving, pools.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable
from functools import cache
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any

import torch

from fastce import scoring
from fastce.backends.base import SLOWEST, check_backend
from fastce.checkpoints.chain import Chain
from fastce.checkpoints.loading import precision_from_dtype
from fastce.checkpoints.network import capped_length, length_limit
from fastce.checks import check_positive, check_precision
from fastce.integrations.live_modules import chain_in, check_modules, checkpoint_over, own_parts
from fastce.pipeline import BatchLimits, Pipeline, Tokenized, Window
from fastce.progress import progress_bar
from fastce.spec import Precision

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)

ENGINE = "_fastce_engine"
"""The attribute of an accelerated model that holds its `Engine`."""


class Engine:
    """fastce's engine over the modules of one model, made again where these are others than before.

    Args:
        backend: As for `fastce.CrossEncoder`.
        precision: As there; None follows the dtype of the model's weights.
        num_threads: As there.
    """

    def __init__(self, backend: str, precision: Precision | None, num_threads: int | None):
        self.options = backend, precision, num_threads
        self._lock = threading.Lock()
        self._parts: list[torch.nn.Module] = []
        self._chain: Chain | None = None
        self._pipeline: Pipeline | None = None
        self._told: set[str] = set()

    def pipeline(self, model: CrossEncoder) -> Pipeline:
        """What computes the logits of a model as it is now.

        Raises:
            ValueError: The model is beyond fastce, or no faster there; the message says why.
        """
        check_modules(model, own_functions())
        chain = chain_in(model)
        parts = own_parts(model, chain)
        with self._lock:
            if self._pipeline is None or chain != self._chain or list(map(id, parts)) != list(map(id, self._parts)):
                backend, precision, num_threads = self.options
                precision = precision or precision_from_dtype(parts[0].dtype) or "fp32"
                self._pipeline = Pipeline(checkpoint_over(model, chain, parts), backend, precision, num_threads)
                self._chain, self._parts = chain, parts
            pipeline = self._pipeline
            pipeline.checkpoint.tokenizer, pipeline.checkpoint.device = model.tokenizer, model.device
        if pipeline.built_encoder().backend == SLOWEST:
            raise ValueError("fastce would run the same module")
        return pipeline

    def tokenized(self, model: CrossEncoder, pipeline: Pipeline, window: Window) -> Tokenized:
        """The pairs as a model's own tokenizer truncates them.

        Raises:
            ValueError: A pair is longer than the model is made for.
        """
        limit = length_limit(model.tokenizer)
        tokenized = pipeline.tokenized(window, limit)
        most = capped_length(limit, pipeline.checkpoint.config, warn=False)
        if (longest := int(tokenized.pairs.lengths.max())) > most:
            raise ValueError(f"a pair has {longest} tokens, and the model is made for {most}")
        return tokenized

    def tell(self, model: CrossEncoder, reason: object) -> None:
        """Logs, once each, why a call goes the original way."""
        if str(reason) not in self._told:
            self._told.add(str(reason))
            logger.warning("a %s scores the way of sentence-transformers: %s", type(model).__name__, reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are of the options alone: the modules are copied as modules."""
        return Engine, self.options


def _inference(
    model: CrossEncoder,
    inputs: list[Any],
    *,
    prompt: str | None,
    batch_size: int,
    show_progress_bar: bool | None,
    activation_fn: scoring.ActivationFn | None,
    apply_softmax: bool | None,
    device: Any = None,
    **processing: Any,
) -> torch.Tensor:
    """Scores pairs, in place of a model's own `_inference`; fastce's token budget stands in for `batch_size`."""
    engine: Engine = vars(model)[ENGINE]
    model.eval()
    model._resolve_inference_device(device)
    if not inputs:
        return torch.tensor([], device=model.device)
    try:
        check_call(model, inputs, processing)
        pipeline = engine.pipeline(model)
        first, second = map(list, zip(*inputs, strict=True))
        tokenized = engine.tokenized(model, pipeline, Window(first, second, prompt or None))
    except (ValueError, RuntimeError, ImportError) as objection:
        engine.tell(model, objection)
        return original(model, "_inference")(
            inputs,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            apply_softmax=apply_softmax,
            device=device,
            **processing,
        )
    with progress_bar(bool(show_progress_bar), total=len(inputs), description="Scoring", unit="pairs") as progress:
        logits = pipeline.compute(tokenized, BatchLimits(), progress.update)
    return scoring.scores_from_logits(logits, activation_fn or torch.nn.Identity(), bool(apply_softmax))


WAY = ("_inference", "_resolve_inference_device", "_placement_is_delegated", "preprocess", "forward", "__call__")
"""What `predict` of sentence-transformers goes through: a class or a model that has its own of these keeps to it."""

METHODS: dict[str, Callable[..., Any]] = {"_inference": _inference}
"""What is put into a model: attribute to function. `predict` and `rank` both end there."""


def check_call(model: CrossEncoder, inputs: list[Any], processing: dict[str, Any]) -> None:
    """Raises ValueError for a call that is not of pairs of texts alone, or that asks for what fastce does not do."""
    for name, value in processing.items():
        if value is not None:
            raise ValueError(f"the argument {name} is for its own modules")
    for pair in inputs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError("an input is no pair of texts")
    if model._placement_is_delegated:
        raise ValueError("hooks place its parts on devices")
    if torch.is_autocast_enabled(model.device.type):
        raise ValueError("autocast is on")


@cache
def own_functions() -> dict[str, Any]:
    """What a CrossEncoder calls on the way from pairs to scores, as sentence-transformers has it.

    Raises:
        RuntimeError: This version of it has another way.
    """
    import sentence_transformers

    found = {name: getattr(sentence_transformers.CrossEncoder, name, None) for name in WAY}
    if missing := [name for name, function in found.items() if function is None]:
        raise RuntimeError(
            f"sentence-transformers {sentence_transformers.__version__}: its CrossEncoder has no {missing[0]}; fastce "
            "is made for version 6.2"
        )
    return found


def original(model: CrossEncoder, name: str) -> Callable[..., Any]:
    """A model's own method."""
    return MethodType(getattr(type(model), name), model)


def accelerate(
    model: CrossEncoder,
    *,
    backend: str = "auto",
    precision: Precision | None = None,
    num_threads: int | None = None,
) -> CrossEncoder:
    """Makes `predict` and `rank` of a sentence-transformers CrossEncoder run on fastce's engine.

    All else stays its own: modules, losses, Trainer, `save_pretrained`, pools.

    Changed weights, an exchanged tokenizer or module, another device: whatever is done to the model counts from the
    next call on. A call that is beyond fastce (inputs that are no pairs of texts, `processing_kwargs`, hooks or modules
    of your own) goes the original way; the logger says why, once.

    Args:
        model: The model, which is changed in place.
        backend: As for `fastce.CrossEncoder`.
        precision: As there; None follows the dtype of the model's weights.
        num_threads: As there.

    Returns:
        The model.

    Raises:
        TypeError: It is no CrossEncoder of sentence-transformers.
        ValueError: An argument is out of range.
    """
    from sentence_transformers import CrossEncoder

    if not issubclass(type(model), CrossEncoder):
        raise TypeError(f"model: expected a sentence_transformers.CrossEncoder, got {type(model).__name__}")
    own_functions()
    vars(model)[ENGINE] = Engine(**checked_options(backend, precision, num_threads))
    for name, method in METHODS.items():
        vars(model)[name] = MethodType(method, model)
    return model


def checked_options(backend: Any, precision: Any, num_threads: Any) -> dict[str, Any]:
    """Arguments of an `Engine`; raises ValueError where one is out of range."""
    return {
        "backend": check_backend(backend),
        "precision": None if precision is None else check_precision(precision),
        "num_threads": None if num_threads is None else check_positive(num_threads, "num_threads"),
    }


def decelerate(model: CrossEncoder) -> CrossEncoder:
    """Gives an accelerated model its own methods back; does nothing to others.

    Returns:
        The model.
    """
    for name in (ENGINE, *METHODS):
        vars(model).pop(name, None)
    return model


class Patch:
    """What `patch_sentence_transformers` has done, until `undo` or the end of a `with` statement.

    Args:
        options: Arguments of `accelerate`.
    """

    def __init__(self, options: dict[str, Any]):
        from sentence_transformers import CrossEncoder

        construct = CrossEncoder.__init__
        self._kind, self._before = CrossEncoder, construct
        self._models: weakref.WeakSet[CrossEncoder] = weakref.WeakSet()
        models = self._models

        @functools.wraps(construct)
        def constructor(self: CrossEncoder, *args: Any, **kwargs: Any) -> None:
            construct(self, *args, **kwargs)
            models.add(accelerate(self, **options))

        self._installed: Callable[..., None] | None = constructor
        CrossEncoder.__init__ = constructor

    def undo(self) -> None:
        """Takes the patch back, from the class and from the models that were made under it; again, does nothing.

        Raises:
            RuntimeError: The class was patched once more since, which must be undone first.
        """
        if self._installed is None:
            return
        if self._kind.__init__ is not self._installed:
            raise RuntimeError("CrossEncoder.__init__ was patched once more since; undo that first")
        self._kind.__init__, self._installed = self._before, None
        for model in self._models:
            decelerate(model)

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def patch_sentence_transformers(
    *, backend: str = "auto", precision: Precision | None = None, num_threads: int | None = None
) -> Patch:
    """Accelerates every CrossEncoder of sentence-transformers that is made from now on, whoever makes it.

    By whichever name the class was imported, it is the same class:

        fastce.patch_sentence_transformers(precision="int8")

        with fastce.patch_sentence_transformers():
            ...

    Args:
        backend: As for `accelerate`.
        precision: As for `accelerate`.
        num_threads: As for `accelerate`.

    Returns:
        What undoes it: by `undo`, or at the end of a `with` statement. The models are their own again then.

    Raises:
        ImportError: sentence-transformers is not installed.
        RuntimeError: Its version is none that fastce knows.
        ValueError: An argument is out of range.
    """
    own_functions()
    return Patch(checked_options(backend, precision, num_threads))
