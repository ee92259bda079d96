"""Scores and trains on NVIDIA GPUs with Triton kernels. On a CPU these run in Triton's interpreter, for tests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

from fastce.backends.base import Request, not_understood
from fastce.backends.cpp.smoothing import smoothed
from fastce.backends.encoder import Forward, OpsEncoder
from fastce.backends.reference.engine import DTYPES, converted
from fastce.backends.triton.graphs import CudaCapture, Graphs
from fastce.backends.triton.transfer import halves, to_device
from fastce.checkpoints.network import Description, Stored
from fastce.features import features_of
from fastce.packing import PackedBatch
from fastce.parameters import parameters
from fastce.spec import Precision
from fastce.steps import Attend, Program, is_foldable, program

if TYPE_CHECKING:
    from fastce.backends.ops import Ops
    from fastce.backends.triton import ops

    OPS: Ops = ops

CAN = features_of(
    """
    LayerNorm LayerNorm.bias=yes|no RMSNorm PostNorm PreNorm Layer.stored
    Embeddings.norm Embeddings.positions AbsolutePositions AbsolutePositions.padding_id
    Attention.bias=yes|no Attention.output_bias=yes|no Attention.kv_heads Attention.qk_norm
    Attention.relation RotaryEmbedding RelativeBias Attention.window Attention.causal=yes|no
    DisentangledAttention DisentangledAttention.content_to_position=yes|no DisentangledAttention.norm
    DisentangledAttention.position_to_content=yes|no DisentangledAttention.shared_projections=yes|no
    FeedForward.activation=gelu|gelu_tanh|relu|silu|tanh FeedForward.gated=yes|no
    FeedForward.bias=yes|no FeedForward.output_bias=yes|no
    HeadSpec.pooling=first|last|mean
    Dense Dense.bias=yes|no Dense.activation=gelu|gelu_tanh|relu|silu|tanh Normalize Dropout TokenDifference
    """
)

WIDEST_HEAD = {"scores": 256, "trains": 128}
"""The widest head that attention has tiles for: in float32, the backward pass of wider ones wants more registers than
there are."""

CAPABILITY = (8, 0)
"""The oldest compute capability (Ampere's): the kernels are compiled and looked at for it and for Hopper's."""

DTYPES_8BIT: dict[Precision, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}

FP8_CAPABILITY = (8, 9)
"""The oldest compute capability that multiplies fp8 (Ada's, then Hopper's)."""

STACKED = (("query", "key", "value"), ("gate", "up"))
"""Matrices that read the same: what lies in one tensor is one product."""


class TritonEncoder(OpsEncoder):
    """An encoder over Triton kernels, which start on the current device; small batches are CUDA graphs in scoring.

    Args:
        program: The network.
        stored: Its parameters.
        device: Where to run.
        module: The module that holds the parameters, for training; None where there is none.
        remarks: What was done to the weights beyond rounding them.
    """

    def __init__(
        self,
        program: Program,
        stored: Mapping[str, Stored],
        device: torch.device,
        module: torch.nn.Module | None = None,
        remarks: Sequence[str] = (),
    ):
        from fastce.backends.triton import ops
        from fastce.backends.triton.linear_8bit import TritonWeights

        super().__init__(ops, program, stored, device, module)
        self.weights = TritonWeights(stored)
        self.remarks = remarks
        self.graphs: Graphs | None = None
        if device.type == "cuda" and module is None:
            with self._on_device():
                self.graphs = Graphs(self._logits_there, device, program.hidden_size, CudaCapture())

    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`. A batch that the device has no memory for is computed in halves."""
        try:
            with self._on_device():
                return self._scored(batch)
        except torch.OutOfMemoryError:
            if len(batch.spans.lengths) == 1:
                raise
        # Behind the handler, where nothing holds on to the tensors of what failed.
        return torch.cat([self.logits(half, num_threads) for half in halves(batch)])

    def training_logits(self, batch: PackedBatch) -> torch.Tensor:
        """See `TrainableEncoder`."""
        with self._on_device():
            return super().training_logits(batch)

    @torch.inference_mode()
    def _scored(self, batch: PackedBatch) -> torch.Tensor:
        return self._logits_there(self._to_device(batch)) if self.graphs is None else self.graphs.logits(batch)

    def _logits_there(self, batch: PackedBatch) -> torch.Tensor:
        if self.module is not None:
            return self._forward(batch).float()
        return FoldedForward(self.ops, self.program, self.weights, batch.spans, training=False).logits(batch).float()

    def _to_device(self, batch: PackedBatch) -> PackedBatch:
        return to_device(batch, self.device)

    def _on_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()


class FoldedForward(Forward):
    """A pass for scoring, which forms no keys and values for the rows that the head reads where it need not."""

    def _context(self, step: Attend, x: torch.Tensor) -> torch.Tensor:
        from fastce.backends.triton.folded import attend_folded
        from fastce.backends.triton.linear_8bit import Linear8Bit

        query, key, value = (self.weights.linear(f"{step.name}.{part}") for part in ("query", "key", "value"))
        if not step.pooled or not is_foldable(step.attention) or isinstance(key, Linear8Bit):
            return super()._context(step, x)
        pooled = self.ops.linear(self.ops.pool(x, self.spans, self.program.head.pooling), query)
        heads = pooled.unflatten(-1, (-1, step.attention.head_dim))  # [num_pairs, heads, head_dim]
        return attend_folded(heads, x, key, value, self.spans, step.attention)


def folded_parts(network: Program) -> tuple[str, ...]:
    """Names of the layers whose keys and values are never formed in 8 bits: no other layer has their weights."""
    names = [step.name for step in network.steps if isinstance(step, Attend)]
    return tuple(
        f"{step.name}.{part}"
        for step in network.steps
        if isinstance(step, Attend) and step.pooled and is_foldable(step.attention) and names.count(step.name) == 1
        for part in ("key", "value")
    )


def stacked(weights: Mapping[str, Stored]) -> Mapping[str, Stored]:
    """Lays the parameters of matrices that read the same end to end, copied: one product in place of several.

    Args:
        weights: Parameters for scoring, by name.
    """
    result = dict(weights)
    for first, *others in STACKED:
        for kind in ("weight", "bias", "scales", "sums"):
            for name in [name for name in weights if name.endswith(f".{first}.{kind}")]:
                prefix = name.removesuffix(f"{first}.{kind}")
                names = [name, *(f"{prefix}{other}.{kind}" for other in others)]
                tensors = [weights[part].tensor for part in names if part in weights]
                if len({tensor.dtype for tensor in tensors}) > 1 or len(tensors) < len(names):
                    continue  # one is in 8 bits, others are not
                whole, end = torch.cat(tensors), 0
                for part, tensor in zip(names, tensors, strict=True):
                    result[part] = Stored(whole, slice(end, end + len(tensor)))
                    end += len(tensor)
    return result


def weights_8bit(
    description: Description, network: Program, dtype: torch.dtype
) -> tuple[dict[str, Stored], Sequence[str]]:
    """The layers' matrices in 8 bits but for those that are folded in bfloat16, all else in float32, and remarks."""
    from fastce.backends.triton.linear_8bit import matrix_8bit

    arrays = {name: stored.tensor.detach().float().cpu().numpy() for name, stored in description.weights.items()}
    remarks: Sequence[str] = ()
    if dtype == torch.int8:  # the steps of fp8 are as fine for a channel as that is small
        arrays, places = smoothed(network, arrays)
        remarks = (f"outliers smoothed in {places} places",) if places else ()
    roles, folded = parameters(description.encoder, description.head), folded_parts(network)
    weights: dict[str, Stored] = {}
    for name, array in arrays.items():
        tensor, part = torch.from_numpy(array), name.rpartition(".")[0]
        if part in folded:
            weights[name] = Stored(tensor.bfloat16())
        elif roles[name].role == "matrix":
            weights |= matrix_8bit(part, tensor, dtype)
        else:
            weights[name] = Stored(tensor)
    return weights, remarks


def on_device(weights: Mapping[str, Stored], device: torch.device) -> dict[str, Stored]:
    """Parameters copied to a device."""
    return {name: Stored(stored.tensor.to(device, copy=True)) for name, stored in weights.items()}


def installed() -> bool:
    """Whether Triton can be imported."""
    try:
        import triton.language  # noqa: F401
    except ImportError:
        return False
    return True


def interpreting() -> bool:
    """Whether the kernels run in Triton's interpreter."""
    from fastce.backends.triton.blocks import INTERPRETED

    return bool(INTERPRETED.value)


def objections_to(device: torch.device, *, named: bool) -> list[str]:
    """What is against running on a device.

    Args:
        device: The device.
        named: Whether the user asks for this very backend.
    """
    if not installed():
        return ["Triton is not installed (pip install triton)"]
    if device.type != "cuda":
        if not interpreting():
            return [f"it runs on CUDA devices, not on {device}"]
        return [] if named else ["its kernels are interpreted here, which is for tests"]
    if not torch.cuda.is_available():
        return ["PyTorch finds no CUDA device"]
    if torch.version.hip is not None:
        return ["it is made for NVIDIA's GPUs"]
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return [f"it needs a GPU of compute capability {written(CAPABILITY)}, and {device} has {written(capability)}"]
    return []


def objections_to_fp8(device: torch.device) -> list[str]:
    """What is against fp8 on a device, where it is not that of interpreted kernels."""
    needs = f"fp8 needs a GPU of compute capability {written(FP8_CAPABILITY)}"
    if device.type == "cuda" and torch.cuda.is_available():
        found = torch.cuda.get_device_capability(device)
        return [] if found >= FP8_CAPABILITY else [f"{needs}, and {device} has {written(found)}"]
    return [] if installed() and device.type == "cpu" and interpreting() else [f"{needs} or newer"]


def written(version: tuple[int, int]) -> str:
    """A compute capability as it is written."""
    return ".".join(map(str, version))


class TritonBackend:
    """Triton kernels: NVIDIA GPUs, every precision."""

    needs_module = False

    def unsupported(self, request: Request) -> list[str]:
        """See `Backend`."""
        reasons = objections_to(request.device, named=request.named)
        if request.precision == "fp8":
            reasons += objections_to_fp8(request.device)
        reasons += not_understood(request.network, CAN)
        if request.network is None or isinstance(request.network.understood, str):
            return reasons
        widest = max(layer.attention.head_dim for layer in request.network.understood.encoder.layers)
        does = "trains" if request.training else "scores"
        if widest > WIDEST_HEAD[does]:
            reasons.append(f"it {does} heads of at most {WIDEST_HEAD[does]} numbers, not {widest}")
        return reasons

    def build(self, request: Request) -> TritonEncoder:
        """See `Backend`."""
        assert request.network is not None
        description, device = request.network.description, request.device
        network = program(description.encoder, description.head)
        if request.precision in DTYPES_8BIT:
            found, remarks = weights_8bit(description, network, DTYPES_8BIT[request.precision])
            return TritonEncoder(network, stacked(on_device(found, device)), device, remarks=remarks)
        weights = converted(description, DTYPES[request.precision], device, own=True)
        return TritonEncoder(network, stacked(weights), device)

    def build_trainable(self, request: Request) -> TritonEncoder:
        """See `Backend`."""
        assert request.network is not None
        description, module = request.network.description, request.network.module
        network = program(description.encoder, description.head)
        return TritonEncoder(network, description.weights, request.device, module)


BACKEND = TritonBackend()
