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

Matrix = NDArray[np.float32] | NDArray[np.int16]
"""float32, or bfloat16 as int16."""
Dropout = tuple[int, float]
"""Seed and probability."""

class Training:
    """The ops of training; results are written in place."""

    def __init__(self, openmp: int = 0, isa: str = "") -> None: ...
    def norm_forward(
        self,
        x: Matrix | None,
        bias: NDArray[np.float32] | None,
        residual: NDArray[np.float32],
        weight: NDArray[np.float32],
        norm_bias: NDArray[np.float32],
        eps: float,
        input_dropout: Dropout,
        output_dropout: Dropout,
        normalized: NDArray[np.float32],
        inverse: NDArray[np.float32],
        output: NDArray[np.float32],
        num_threads: int = 0,
    ) -> None: ...
    def norm_backward(
        self,
        output_gradient: NDArray[np.float32],
        normalized: NDArray[np.float32],
        inverse: NDArray[np.float32],
        weight: NDArray[np.float32],
        input_dropout: Dropout,
        output_dropout: Dropout,
        residual_gradient: NDArray[np.float32],
        x_gradient: Matrix | None,
        weight_gradient: NDArray[np.float32],
        norm_bias_gradient: NDArray[np.float32],
        bias_gradient: NDArray[np.float32] | None,
        num_threads: int = 0,
    ) -> None: ...
    def gelu_forward(self, x: Matrix, bias: NDArray[np.float32], output: Matrix, num_threads: int = 0) -> None: ...
    def gelu_backward(
        self,
        x: Matrix,
        bias: NDArray[np.float32],
        output_gradient: Matrix,
        x_gradient: Matrix,
        bias_gradient: NDArray[np.float32],
        num_threads: int = 0,
    ) -> None: ...
    def attention_forward(
        self,
        num_heads: int,
        query: Matrix,
        key: Matrix,
        value: Matrix,
        cu_queries: NDArray[np.int32],
        cu_keys: NDArray[np.int32],
        scale: float,
        dropout: Dropout,
        output: Matrix,
        softmax: NDArray[np.float32],
        num_threads: int = 0,
    ) -> None: ...
    def attention_backward(
        self,
        num_heads: int,
        query: Matrix,
        key: Matrix,
        value: Matrix,
        cu_queries: NDArray[np.int32],
        cu_keys: NDArray[np.int32],
        scale: float,
        dropout: Dropout,
        output: Matrix,
        softmax: NDArray[np.float32],
        output_gradient: Matrix,
        query_gradient: Matrix,
        key_gradient: Matrix,
        value_gradient: Matrix,
        num_threads: int = 0,
    ) -> None: ...
    def embedding_forward(
        self,
        ids: Sequence[NDArray[np.int32]],
        tables: Sequence[NDArray[np.float32]],
        sums: NDArray[np.float32],
        num_threads: int = 0,
    ) -> None: ...
    def embedding_backward(
        self,
        ids: Sequence[NDArray[np.int32]],
        table_gradients: Sequence[NDArray[np.float32]],
        gradient: NDArray[np.float32],
        num_threads: int = 0,
    ) -> None: ...
    def dropout_factors(self, dropout: Dropout, rows: int, columns: int) -> NDArray[np.float32]: ...

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
