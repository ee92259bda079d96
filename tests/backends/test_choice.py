"""The choice between backends, and what is said of those that were passed over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny_models import PAIRS

from fastce import CrossEncoder, available_backends

Tiny = Callable[..., str]


def test_backends_say_why(tiny: Tiny) -> None:
    described, unknown = CrossEncoder(tiny("bert")), CrossEncoder(tiny("ernie"))
    assert list(available_backends()) == ["cpp", "triton", "reference", "transformers"]
    for found in (available_backends(described), available_backends()):
        assert found["reference"]
        assert found["transformers"]
        assert found["reference"].reasons == ()
    assert not available_backends(unknown)["reference"]
    assert "model type 'ernie' is none of bert" in available_backends(unknown)["reference"].reasons[0]
    for name in ("reference", "transformers"):
        assert available_backends(precision="int8")[name].reasons == ("it has no int8",)
        assert available_backends(precision="fp8")[name].reasons == ("it has no fp8",)


def test_a_model_says_what_runs_and_what_does_not(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    model = CrossEncoder(tiny("bert"), precision="bf16", num_threads=3)
    assert model.backend == "cpp"
    assert repr(model) == (
        f"CrossEncoder({tiny('bert')!r}, backend='cpp', precision='bf16', device='cpu', num_threads=3)"
    )
    assert caplog.records == []
    unknown = CrossEncoder(tiny("ernie"))
    assert unknown.backend == "transformers"
    assert "; not cpp: model type 'ernie' is none of" in repr(unknown)
    unknown.predict(PAIRS[:3])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "runs padded, as its transformers module" in record.message
    assert "cpp: model type 'ernie' is none of" in record.message


def test_the_default_of_sentence_transformers_means_the_fastest(tiny: Tiny) -> None:
    assert CrossEncoder(tiny("bert"), backend="torch").backend == "cpp"
    for name in ("onnx", "openvino"):
        with pytest.raises(ValueError, match=f"backend: '{name}' is one of sentence-transformers"):
            CrossEncoder(tiny("bert"), backend=name)


def test_a_named_backend_is_obeyed_in_training(tiny: Tiny) -> None:
    for name in ("cpp", "reference", "transformers"):
        model = CrossEncoder(tiny("bert"), backend=name)
        assert model.pipeline.built_encoder(training=True).backend == name
