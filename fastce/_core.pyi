"""The C++ module. Absent where no compiler was at hand when fastce was installed."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fastce.spec import EncoderSpec, HeadSpec

version: str

class Encoder:
    """A network with packed weights; any number of threads may use one."""

    def __init__(
        self,
        encoder: EncoderSpec,
        head: HeadSpec,
        weights: Mapping[str, NDArray[np.float32]],
        number_format: str,
        isa: str = "",
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    def logits(
        self,
        input_ids: NDArray[np.int32],
        token_type_ids: NDArray[np.int32],
        position_ids: NDArray[np.int32],
        cu_seqlens: NDArray[np.int32],
        num_threads: int = 0,
    ) -> NDArray[np.float32]: ...

def choose_level(isa: str = "") -> str: ...
def cpu_features() -> list[str]: ...
def default_num_threads() -> int: ...
def isa_levels() -> list[str]: ...
def usable_cpus() -> int: ...

class LinearKernel:
    """A packed linear layer, for tests and benchmarks like all below."""

    def __init__(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        number_format: str,
        isa: str,
    ) -> None: ...
    def __call__(
        self,
        x: NDArray[np.float32],
        activation: str = "none",
        residual: NDArray[np.float32] | None = None,
        norm_weight: NDArray[np.float32] | None = None,
        norm_bias: NDArray[np.float32] | None = None,
        eps: float = 0.0,
    ) -> NDArray[np.float32]: ...
    def seconds(self, x: NDArray[np.float32], repeats: int) -> float: ...

def attention_kernel(
    query: NDArray[np.float32],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    number_format: str,
    isa: str,
) -> NDArray[np.float32]: ...
def embed_kernel(
    ids: Sequence[NDArray[np.int32]],
    tables: Sequence[NDArray[np.float32]],
    norm_weight: NDArray[np.float32],
    norm_bias: NDArray[np.float32],
    eps: float,
    isa: str,
) -> NDArray[np.float32]: ...
def peak_kernel(number_format: str, isa: str, steps: int) -> float: ...
def quantize_kernel(
    x: NDArray[np.float32], isa: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]: ...
