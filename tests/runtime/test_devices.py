"""Devices and floating-point types by name; CUDA's answers are faked, so that no GPU is needed."""

from __future__ import annotations

import pytest
import torch

from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.runtime.devices import device_name, dtype_name, half_precision


@pytest.fixture
def third_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there are GPUs, of which the third is current."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)


def test_cuda_is_the_current_device(third_gpu: None) -> None:
    assert device_name("cuda") == "cuda:2"
    assert [device_name(name) for name in ("cuda:0", "cuda:1", "cpu", "mps")] == ["cuda:0", "cuda:1", "cpu", "mps"]


def test_cuda_without_a_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError, match="torch sees no CUDA device here"):
            device_name(name)
    with pytest.raises(ConfigError, match="'gpu' is not one that torch knows"):
        device_name("gpu")


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_half_precision(third_gpu: None, monkeypatch: pytest.MonkeyPatch, native: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert half_precision("cuda") == dtype_name(None, "cuda:2") == expected
    assert half_precision("cpu") == half_precision(None) == "bfloat16"
    assert dtype_name(None, "cpu") == "float32"


def test_types_by_name() -> None:
    assert [dtype_name(name, "cpu") for name in ("float16", "torch.float32", torch.bfloat16)] == [
        "float16",
        "float32",
        "bfloat16",
    ]
    with pytest.raises(ConfigError, match="dtype 'int8' is not one of float32"):
        dtype_name("int8", "cpu")
