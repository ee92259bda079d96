"""The C++ module. Absent where no compiler was at hand when fastce was installed."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastce.spec import Activation
from fastce.steps import Program

version: str

class Encoder:
    """A network with packed weights; any number of threads may use one."""

    def __init__(
        self,
        program: Program,
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
        prefixes: NDArray[np.int32] | None = None,
        num_threads: int = 0,
    ) -> NDArray[np.float32]: ...
    @property
    def shared_bytes(self) -> int: ...

Matrix = NDArray[np.float32] | NDArray[np.int16]
"""float32, or bfloat16 as int16."""
Dropout = tuple[int, float]
"""Seed and probability."""

Tables = tuple[NDArray[np.float32] | None, Matrix | None, Matrix | None]
"""What scores get by distance: a bias, and what queries and what keys are multiplied with."""
TableGradients = tuple[NDArray[np.float32] | None, NDArray[np.float32] | None, NDArray[np.float32] | None]

class VarlenAttention:
    """Attention over sequences that lie end to end, as the ops of training compute it."""

    def __init__(
        self,
        *,
        heads: int,
        kv_heads: int,
        dim: int,
        cu_queries: NDArray[np.int32],
        cu_keys: NDArray[np.int32],
        queries_are_last: bool,
        before: int | None,
        after: int | None,
        rotation: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
        scale: float,
        dropout: Dropout,
    ) -> None: ...

class Training:
    """The ops of training; results are written in place."""

    def __init__(self, openmp: int = 0, num_threads: int = 0, isa: str = "") -> None: ...
    def norm_forward(
        self,
        *,
        x: Matrix | None,
        bias: NDArray[np.float32] | None,
        residual: NDArray[np.float32],
        input_dropout: Dropout,
        norm: Literal["layer", "rms"],
        weight: NDArray[np.float32],
        norm_bias: NDArray[np.float32] | None,
        eps: float,
        output_dropout: Dropout,
        total: NDArray[np.float32] | None,
        normalized: NDArray[np.float32],
        inverse: NDArray[np.float32],
        output: NDArray[np.float32],
    ) -> None: ...
    def norm_backward(
        self,
        *,
        output_gradient: NDArray[np.float32],
        total_gradient: NDArray[np.float32] | None,
        normalized: NDArray[np.float32],
        inverse: NDArray[np.float32],
        input_dropout: Dropout,
        norm: Literal["layer", "rms"],
        weight: NDArray[np.float32],
        output_dropout: Dropout,
        x_gradient: Matrix | None,
        bias_gradient: NDArray[np.float32] | None,
        residual_gradient: NDArray[np.float32],
        weight_gradient: NDArray[np.float32],
        norm_bias_gradient: NDArray[np.float32] | None,
    ) -> None: ...
    def activate_forward(
        self,
        *,
        activation: Activation,
        x: Matrix,
        bias: NDArray[np.float32] | None,
        factor: Matrix | None,
        factor_bias: NDArray[np.float32] | None,
        output: Matrix,
    ) -> None: ...
    def activate_backward(
        self,
        *,
        activation: Activation,
        x: Matrix,
        bias: NDArray[np.float32] | None,
        factor: Matrix | None,
        factor_bias: NDArray[np.float32] | None,
        output_gradient: Matrix,
        x_gradient: Matrix,
        bias_gradient: NDArray[np.float32] | None,
        factor_gradient: Matrix | None,
        factor_bias_gradient: NDArray[np.float32] | None,
    ) -> None: ...
    def attention_forward(
        self,
        attention: VarlenAttention,
        *,
        query: Matrix,
        key: Matrix,
        value: Matrix,
        tables: Tables,
        output: Matrix,
        softmax: NDArray[np.float32],
    ) -> None: ...
    def attention_backward(
        self,
        attention: VarlenAttention,
        *,
        query: Matrix,
        key: Matrix,
        value: Matrix,
        tables: Tables,
        softmax: NDArray[np.float32],
        output_gradient: Matrix,
        query_gradient: Matrix,
        key_gradient: Matrix,
        value_gradient: Matrix,
        table_gradients: TableGradients,
    ) -> None: ...
    def embedding_forward(
        self,
        *,
        ids: Sequence[NDArray[np.int32]],
        tables: Sequence[NDArray[np.float32]],
        sums: NDArray[np.float32],
    ) -> None: ...
    def embedding_backward(
        self,
        *,
        ids: Sequence[NDArray[np.int32]],
        table_gradients: Sequence[NDArray[np.float32]],
        gradient: NDArray[np.float32],
    ) -> None: ...
    def dropout_factors(self, dropout: Dropout, rows: int, columns: int) -> NDArray[np.float32]: ...

def choose_level(isa: str = "") -> str: ...
def cpu_features() -> list[str]: ...
def default_num_threads() -> int: ...
def isa_levels() -> list[str]: ...
def usable_cpus(root: str = "") -> int: ...

class LinearKernel:
    """A packed linear layer, for tests and benchmarks like all below."""

    def __init__(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        number_format: str,
        isa: str,
        gate: NDArray[np.float32] | None = None,
        gate_bias: NDArray[np.float32] | None = None,
    ) -> None: ...
    def __call__(self, x: NDArray[np.float32], activation: str = "none") -> NDArray[np.float32]: ...
    def rotated(
        self,
        x: NDArray[np.float32],
        heads: int,
        dim: int,
        cosines: NDArray[np.float32],
        sines: NDArray[np.float32],
        positions: NDArray[np.int32],
    ) -> NDArray[np.float32]: ...
    def add(
        self,
        x: NDArray[np.float32],
        stream: NDArray[np.float32],
        norm: str,
        norm_weight: NDArray[np.float32],
        norm_bias: NDArray[np.float32] | None,
        eps: float,
        keeps_sum: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
    def seconds(self, x: NDArray[np.float32], repeats: int) -> float: ...

def attention_kernel(
    query: NDArray[np.float32],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    number_format: str,
    isa: str,
    first_query: int = 0,
    before: int | None = None,
    after: int | None = None,
) -> NDArray[np.float32]: ...
def embed_kernel(
    ids: Sequence[NDArray[np.int32]],
    tables: Sequence[NDArray[np.float32]],
    norm_weight: NDArray[np.float32],
    norm_bias: NDArray[np.float32],
    eps: float,
    isa: str,
) -> NDArray[np.float32]: ...
def normalize_kernel(
    x: NDArray[np.float32],
    norm: str,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    eps: float,
    isa: str,
) -> NDArray[np.float32]: ...
def peak_kernel(number_format: str, isa: str, steps: int) -> float: ...
def quantize_kernel(
    x: NDArray[np.float32], isa: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]: ...
