"""A loaded model: in its file until its Hugging Face module is asked for."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from fastce.checkpoints.adapters import adapter_state, base_module, merged_module
from fastce.checkpoints.chain import ModuleChain
from fastce.checkpoints.fingerprint import Fingerprint
from fastce.checkpoints.metadata import Metadata
from fastce.checkpoints.network import Network, network_of
from fastce.checkpoints.untouched import interference, parts_of, signature
from fastce.steps import num_labels as labels_of
from fastce.templates import pair_tokenizer
from fastce.tokenization import PairTokenizer


class Checkpoint:
    """A model's config, tokenizer and parameters.

    Engines that convert the weights need the module no longer than it takes to read them, so it is made only when
    somebody trains, saves or looks at it.

    Args:
        config: The Hugging Face config.
        tokenizer: The tokenizer.
        metadata: What sentence-transformers stores beside a model.
        read: Reads the network without the module; returns None where that can't be done.
        load: Makes the module: float32, in evaluation mode.
        has_head: Says whether the weights of the classification head are stored, or made new.
        message_format: How texts stand in the messages of the tokenizer's chat template; None: no template is used.
        trailing_id: Says, of the config, which token counts as padding at a pair's end, or None; None: none does.
        load_tokenizer: Makes the tokenizer again.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        metadata: Metadata,
        read: Callable[[], Network | None],
        load: Callable[[], Any],
        has_head: Callable[[], bool],
        load_tokenizer: Callable[[], Any],
        message_format: str | None = None,
        trailing_id: Callable[[Any], int | None] | None = None,
    ):
        self._tokenizer = tokenizer
        self._load_tokenizer = load_tokenizer
        self._stored_tokenizer: StoredTokenizer | None = None
        self.metadata = metadata
        self.device = torch.device("cpu")
        self._config = config
        self._read = read
        self._load = load
        self.has_head = has_head
        self.message_format = message_format
        self._trailing_id = trailing_id
        self._module: Any = None
        self._file: Fingerprint | None = None
        self._samples = Samples()
        self._lock = threading.RLock()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, loaded now if only what tells it from others came here.

        Raises:
            RuntimeError: Its files are not what they were.
        """
        with self._lock:
            if self._stored_tokenizer is not None:
                self.check_file()
                self._tokenizer = self._stored_tokenizer.load(self._load_tokenizer)
                self._stored_tokenizer = None
            return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        with self._lock:
            self._tokenizer, self._stored_tokenizer = tokenizer, None

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        return self._config if self._module is None else self._module.config

    @property
    def trailing_id(self) -> int | None:
        """The token that counts as padding at a pair's end, as the config says now, or None."""
        return None if self._trailing_id is None else self._trailing_id(self.config)

    @property
    def num_labels(self) -> int:
        """Logits of a pair."""
        base = None if self._module is None else base_module(self._module)
        return labels_of(base.head) if isinstance(base, ModuleChain) else int(self.config.num_labels)

    @property
    def is_training(self) -> bool:
        """Whether the module has been made, and put into training mode."""
        return self._module is not None and bool(self._module.training)

    @property
    def module(self) -> Any:
        """The Hugging Face module, made now if it has not been.

        Raises:
            RuntimeError: The file that the weights were read from is not what it was any more.
        """
        with self._lock:
            if self._module is None:
                self.check_file()
                module = self._load().to(self.device)
                self.check_file()
                self._module = module
            return self._module

    @module.setter
    def module(self, module: Any) -> None:
        with self._lock:
            self._module = module
            self.device = next(iter(module.parameters())).device

    def pair_tokenizer(self, *, remembers: bool = False) -> PairTokenizer:
        """What tokenises the model's pairs; see `PairTokenizer`."""
        return pair_tokenizer(self.tokenizer, self.message_format, remembers, self.trailing_id)

    def to(self, device: torch.device) -> None:
        """Moves the module, now or when it is made."""
        with self._lock:
            if self._module is not None:
                self._module.to(device)
                device = next(iter(self._module.parameters())).device  # "cuda" has become "cuda:0"
            self.device = device

    def check_file(self) -> None:
        """Raises RuntimeError where the weights came from a file that is not what it was any more."""
        if self._file is not None:
            self._file.check()

    def network(self, *, with_module: bool) -> Network:
        """Describes the network.

        Args:
            with_module: Whether the description must be of the module itself; without, it may be read from the file,
                and adapters are merged. What was read counts once `check_file` has passed after its last use.

        Raises:
            RuntimeError: The file is not the one that the model was loaded from.
        """
        with self._lock:
            if self._module is None:
                self.check_file()
            network = None if with_module or self._module is not None else self._read()
            if network is None:
                network = network_of(self.module) if with_module else self._merged_network()
            elif network.file is not None:
                self._file = self._file or network.file
                self.check_file()
            return replace(network, tokenizer=self.tokenizer)

    def _merged_network(self) -> Network:
        if objection := interference(self.module):  # merging would drop the hooks of adapted parts
            return Network(self.module, objection)
        try:
            return network_of(merged_module(self.module))
        except ValueError as error:
            return Network(self.module, str(error))

    def state(self) -> object:
        """Changes with the config, the weights, and with what is put into, over or around the parts of the module.

        Another module, part, parameter, hook or adapter, an optimizer's step and a change in place are always noticed.
        A change through `parameter.data` leaves no trace but its values, of which a few of each parameter are read:
        what changes a parameter nearly everywhere is noticed, a change of single elements may be missed.
        """
        with self._lock:
            config = dict(vars(self.config))  # modules read some of it while they run
            if self._module is None:
                return self.device, config
            parts = list(parts_of(self._module))
            weights = [weight for part in parts for weight in part._parameters.values() if weight is not None]
            versions = [(weight.data_ptr(), version_of(weight), OPTIMIZER_STEPS.get(weight)) for weight in weights]
            values = self._samples.read(weights)
            adapters = adapter_state(self._module)
            return id(self._module), config, list(map(signature, parts)), versions, values, adapters

    def __getstate__(self) -> dict[str, Any]:
        """What is as its files have it stays there, the weights and the tokenizer; fingerprints tell whether it is."""
        # First what lets the other process find the code of models that bring their own.
        state = {"_imports": RemoteCode()} | {
            name: value for name, value in vars(self).items() if name not in UNPICKLED
        }
        if self._module is not None:
            state |= {"_tokenizer": self.tokenizer, "_stored_tokenizer": None}
        elif self._stored_tokenizer is None:
            stored = StoredTokenizer.of(self._tokenizer, self._load_tokenizer)
            state |= {"_stored_tokenizer": stored, "_tokenizer": None if stored else self._tokenizer}
        return state | {"_read": None, "_load": None} if self._module is not None else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != "_imports"})
        self._samples = Samples()
        self._lock = threading.RLock()


UNPICKLED = ("_lock", "_samples")


class Samples:
    """A few values of each weight, evenly spread, read in one go."""

    EACH = 16

    def __init__(self) -> None:
        self._places: list[tuple[int, torch.Size]] = []
        self._views: dict[torch.device, list[torch.Tensor]] = {}

    def read(self, weights: list[torch.Tensor]) -> list[bytes]:
        """The values as they are now."""
        places = [(weight.data_ptr(), weight.shape) for weight in weights]
        if places != self._places:
            self._places, self._views = places, {}
            for weight in weights:
                flat = weight.detach().as_strided((weight.numel(),), (1,))
                views = self._views.setdefault(weight.device, [])
                views.append(flat[:: max(1, len(flat) // self.EACH)][: self.EACH])
        return [
            torch.cat(views).view(torch.uint8).cpu().numpy().tobytes()
            for device, views in self._views.items()
            if device.type != "meta"
        ]


class StoredTokenizer(NamedTuple):
    """A tokenizer that is as its files have it.

    Attributes:
        digest: What tells it from others.
        max_length: Its `model_max_length`, which is set when a model is loaded.
    """

    digest: str
    max_length: int

    @classmethod
    def of(cls, tokenizer: Any, load: Callable[[], Any]) -> StoredTokenizer | None:
        """What is to be said of a tokenizer; None where its files would not give the same one again."""
        try:
            again = load()
        except Exception:  # its files are gone, or broken by now
            return None
        again.model_max_length = tokenizer.model_max_length
        digest = PairTokenizer(tokenizer).digest()
        if shown(again) != shown(tokenizer) or PairTokenizer(again).digest() != digest:
            return None
        return cls(digest, tokenizer.model_max_length)

    def load(self, load: Callable[[], Any]) -> Any:
        """Loads the tokenizer.

        Raises:
            RuntimeError: Its files have another one by now.
        """
        tokenizer = load()
        tokenizer.model_max_length = self.max_length
        if PairTokenizer(tokenizer).digest() != self.digest:
            raise RuntimeError(f"the tokenizer of {tokenizer.name_or_path} has changed since the model was loaded")
        return tokenizer


def shown(tokenizer: Any) -> dict[str, bytes]:
    """The attributes of a tokenizer, but for the part that digests are of, whose truncation and padding come and go."""
    return {name: pickle.dumps(value) for name, value in vars(tokenizer).items() if name != "_tokenizer"}


class RemoteCode:
    """Makes the folder importable, where it is unpickled, in which transformers keeps the code of models."""

    def __reduce__(self) -> tuple[Any, ...]:
        from transformers.dynamic_module_utils import init_hf_modules

        return init_hf_modules, ()


def version_of(weight: torch.Tensor) -> int | None:
    """Counts changes in place; those of tensors made in inference mode are not counted."""
    return None if weight.is_inference() else weight._version


OPTIMIZER_STEPS = WeakTensorKeyDictionary()
"""Parameters to the last step of an optimizer, of all steps anywhere, that has changed them."""

STEP_NUMBERS = count()


def note_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Notes a step of any optimizer of torch's kind: fused ones change parameters behind their version counters."""
    number = next(STEP_NUMBERS)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            OPTIMIZER_STEPS[parameter] = number


register_optimizer_step_post_hook(note_step)
