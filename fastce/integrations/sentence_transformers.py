"""fastce's engine inside of sentence-transformers' own CrossEncoder: `accelerate`, `decelerate`, and a patch for all.

Only the way from pairs to scores is replaced, one method of a model. Everything else stays the model's own: its
modules, losses, Trainer, saving, pools.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any

import torch

from fastce import scoring
from fastce.backends.base import SLOWEST, check_backend
from fastce.checkpoints.network import capped_length, length_limit
from fastce.checks import check_positive, check_precision
from fastce.integrations.live_modules import PUT_IN, chain_in, check_modules, checkpoint_over, own_parts
from fastce.pipeline import BatchLimits, Pipeline, Tokenized, Window
from fastce.progress import progress_bar
from fastce.spec import Precision

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)

ENGINE = "_fastce_engine"
"""The attribute of an accelerated model that holds its `Engine`."""


class Switch:
    """What all models of a patch look at.

    Attributes:
        on: Whether the patch is there.
    """

    on = True


class Engine:
    """fastce's engine over the modules of one model, made again where these are others than before.

    Args:
        backend: As for `fastce.CrossEncoder`.
        precision: As there; None follows the dtype of the model's weights.
        num_threads: As there.
        switch: Of the patch that the model was made under.
    """

    def __init__(
        self, backend: str, precision: Precision | None, num_threads: int | None, switch: Switch | None = None
    ):
        self.options = backend, precision, num_threads
        self.switch = Switch() if switch is None else switch
        self._lock = threading.Lock()
        self._facts: object = None
        self._pipeline: Pipeline | None = None
        self._told: set[str] = set()

    def pipeline(self, model: CrossEncoder) -> Pipeline:
        """What computes the logits of a model as it is now.

        Raises:
            ValueError: The model is beyond fastce, or no faster there; the message says why.
        """
        check_modules(model)
        chain = chain_in(model)
        parts = own_parts(model, chain)
        backend, precision, num_threads = self.options
        dtype = model[0].model.dtype
        if precision is None and dtype not in PRECISIONS:
            raise ValueError(f"its weights are {dtype}")
        precision = precision or PRECISIONS[dtype]
        facts = chain, precision, list(map(id, parts))
        with self._lock:
            if self._pipeline is None or facts != self._facts:
                self._pipeline = Pipeline(checkpoint_over(model, chain, parts), backend, precision, num_threads)
                self._facts = facts
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
        if int(tokenized.pairs.lengths.max()) > most:
            raise ValueError(f"a pair has more tokens than the {most} that the model is made for")
        return tokenized

    def tell(self, model: CrossEncoder, reason: object) -> None:
        """Logs, once each, why a call goes the original way."""
        if str(reason) not in self._told:
            self._told.add(str(reason))
            logger.warning("a %s scores the way of sentence-transformers: %s", type(model).__name__, reason)

    def __deepcopy__(self, _: Any) -> Engine:
        """A copy of a model has an engine of its own."""
        return Engine(*self.options, self.switch)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled model needs no fastce: it arrives with its own methods, and None in place of this."""
        return type(None), ()


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
    engine: Engine | None = vars(model).get(ENGINE)
    own = functools.partial(
        MethodType(type(model)._inference, model),
        inputs,
        prompt=prompt,
        batch_size=batch_size,
        show_progress_bar=show_progress_bar,
        activation_fn=activation_fn,
        apply_softmax=apply_softmax,
        device=device,
        **processing,
    )
    if engine is None or not engine.switch.on:
        return own()
    model.eval()
    model._resolve_inference_device(device)
    if not inputs:
        return torch.tensor([], device=model.device)
    try:
        check_call(model, inputs, processing)
        pipeline = engine.pipeline(model)
        first, second = map(list, zip(*inputs, strict=True))
        tokenized = engine.tokenized(model, pipeline, Window(first, second, prompt or None))
    except Exception as objection:  # whatever is wrong with the inputs or the model, it has words of its own for it
        engine.tell(model, objection)
        return own()
    with progress_bar(bool(show_progress_bar), total=len(inputs), description="Scoring", unit="pairs") as progress:
        logits = pipeline.compute(tokenized, BatchLimits(), progress.update)
    return scoring.scores_from_logits(logits, activation_fn or torch.nn.Identity(), bool(apply_softmax))


NEEDED = ("_inference", "_resolve_inference_device", "_placement_is_delegated")
"""What fastce needs of sentence-transformers' class."""

PRECISIONS: dict[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

METHODS: dict[str, Callable[..., Any]] = {PUT_IN: _inference}
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


def check_version() -> None:
    """Raises RuntimeError where the installed sentence-transformers has another way from pairs to scores."""
    import sentence_transformers

    if missing := [name for name in NEEDED if not hasattr(sentence_transformers.CrossEncoder, name)]:
        raise RuntimeError(
            f"sentence-transformers {sentence_transformers.__version__}: its CrossEncoder has no {missing[0]}; fastce "
            "is made for version 6.2"
        )


def accelerate(
    model: CrossEncoder,
    *,
    backend: str = "auto",
    precision: Precision | None = None,
    num_threads: int | None = None,
) -> CrossEncoder:
    """Makes `predict` and `rank` of a sentence-transformers CrossEncoder run on fastce's engine.

    All else stays its own: modules, losses, Trainer, `save_pretrained`, pools.

    Changed weights, an exchanged tokenizer or module, another device or dtype: what is done to the model counts from
    the next call on. Not noticed are single elements changed through `parameter.data`, and buffers and plain attributes
    of parts; `accelerate` again looks at everything. A call that is beyond fastce (inputs that are no pairs of texts,
    `processing_kwargs`, hooks or modules of your own) goes the original way; the logger says why, once.

    Pools and lists of devices score the original way, in the precision of the weights. A deep copy is accelerated too,
    a shallow one scores as the model that it was made of, and a pickled model arrives without fastce.

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

    from fastce.cross_encoder import CrossEncoder as Own

    if isinstance(model, Own):
        raise TypeError("model: it is fastce's own, and runs on its engine already")
    if not issubclass(type(model), CrossEncoder):
        raise TypeError(f"model: expected a sentence_transformers.CrossEncoder, got {type(model).__name__}")
    check_version()
    put_in(model, Engine(**checked_options(backend, precision, num_threads)))
    return model


def put_in(model: CrossEncoder, engine: Engine) -> None:
    """Gives a model an engine, and the methods that use it."""
    vars(model)[ENGINE] = engine
    for name, method in METHODS.items():
        vars(model)[name] = MethodType(method, model)


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

        construct, switch = CrossEncoder.__init__, Switch()
        self._kind, self._before, self._switch = CrossEncoder, construct, switch

        @functools.wraps(construct)
        def constructor(self: CrossEncoder, *args: Any, **kwargs: Any) -> None:
            construct(self, *args, **kwargs)
            put_in(self, Engine(**options, switch=switch))

        self._installed = constructor
        CrossEncoder.__init__ = constructor

    def undo(self) -> None:
        """Takes the patch back, from the class and from the models that were made under it and their copies.

        Raises:
            RuntimeError: The class was patched once more since, which must be undone first.
        """
        if not self._switch.on:
            return
        if self._kind.__init__ is not self._installed:
            raise RuntimeError("CrossEncoder.__init__ was patched once more since; undo that first")
        self._kind.__init__ = self._before
        self._switch.on = False

    def __repr__(self) -> str:
        return f"<fastce in sentence_transformers.CrossEncoder, {'on' if self._switch.on else 'undone'}>"

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
    check_version()
    return Patch(checked_options(backend, precision, num_threads))
