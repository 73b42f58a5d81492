"""Devices and floating-point types by name, as torch knows them on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def device_name(device: str) -> str:
    """Return ``device`` with its index, so that equal devices have equal names: ``cuda`` is the current CUDA device.

    Raises
    ------
    ConfigError
        For a device that torch does not know, or CUDA where torch has none.
    """
    import torch

    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not one that torch knows, such as cpu, cuda or cuda:1.") from error
    if known.type != "cuda":
        return known.type if known.type == "cpu" or known.index in (None, 0) else str(known)
    if not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: torch sees no CUDA device here; use cpu.")
    return f"cuda:{torch.cuda.current_device() if known.index is None else known.index}"


def dtype_name(dtype: str | torch.dtype | None, device: str) -> str:
    """Return ``dtype`` without "torch."; None is float32 on the CPU and :func:`half_precision` elsewhere.

    Raises
    ------
    ConfigError
        For a type other than float32, bfloat16 or float16.
    """
    name = str(dtype).removeprefix("torch.") if dtype else None
    name = name or ("float32" if device.startswith("cpu") else half_precision(device))
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is not one of {', '.join(DTYPES)}.")
    return name


def half_precision(device: str | None) -> str:
    """Return the 16-bit type for ``device``: float16 on a GPU without bfloat16, else bfloat16."""
    import torch

    if device and device.startswith("cuda") and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16"
