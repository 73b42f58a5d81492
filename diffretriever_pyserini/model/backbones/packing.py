"""Packing of texts into a single row of tokens without padding; each text attends only to itself.

transformers lets a model call our attention function. On a GPU that supports them, it uses torch's variable-length
kernels; elsewhere, texts of equal length go through torch's scaled dot product attention together.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
ATTENTION = "diffretriever_packed"
_PROBE = (5, 3, 3)  # lengths of the texts on which a kernel is tested
_TOLERANCE = 0.05  # attention across texts would give ten times this error


@dataclass(frozen=True)
class Packing:
    """The offsets of texts in a row of T tokens.

    Attributes
    ----------
    lengths : tokens of each text, in order.
    positions : int64 [T], position of each token within its text, on the model's device.
    remaining : int64 [T], tokens from each one to the end of its text, including itself, on the model's device.
    bounds : int32 [B + 1], offset of each text, and T, on the model's device.
    kernel : whether to use torch's variable-length kernels.
    causal : whether a token attends only to itself and earlier ones.
    """

    lengths: tuple[int, ...]
    positions: torch.Tensor
    remaining: torch.Tensor
    bounds: torch.Tensor
    kernel: bool = False
    causal: bool = False

    @classmethod
    def of(cls, lengths: np.ndarray, device: Any, kernel: bool = False, causal: bool = False) -> Packing:
        """The packing of texts with ``lengths`` int64 [B] tokens."""
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        offsets = np.arange(bounds[-1])
        return cls(
            tuple(lengths.tolist()),
            on_device(offsets - np.repeat(bounds[:-1], lengths), device),
            on_device(np.repeat(bounds[1:], lengths) - offsets, device),
            on_device(bounds.astype(np.int32), device),
            kernel,
            causal,
        )


def on_device(values: np.ndarray, device: Any) -> torch.Tensor:
    """``values`` as a tensor on ``device``; a copy to a GPU does not wait for its earlier work."""
    import torch

    tensor = torch.from_numpy(values)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def let_pack(model: PreTrainedModel) -> None:
    """Let ``model`` run both packed rows and padded batches."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


def run_packed(model: PreTrainedModel, ids: torch.Tensor, packing: Packing, **inputs: torch.Tensor) -> torch.Tensor:
    """Final hidden states [T, H] of the ids [T] of packed texts; ``inputs`` are further inputs, [T]."""
    # transformers passes a mask of four dimensions on unchanged and builds none; our attention uses only the packing.
    no_mask = ids.new_zeros((1, 1, 1, 1), dtype=model.dtype)
    rows = {name: value.unsqueeze(0) for name, value in inputs.items()}
    states = model.base_model(input_ids=ids.unsqueeze(0), attention_mask=no_mask, packing=packing, **rows)
    return states.last_hidden_state[0]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: [B, heads, L, D] each -> [B, L, heads, D]; with ``packing`` B is 1."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **more)
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))  # [T, heads, D]
    if packing.kernel and not dropout:  # the kernels have none
        return _by_kernel(query, key, value, packing, scaling).unsqueeze(0), None
    return _by_length(query, key, value, packing, scaling, dropout).unsqueeze(0), None


def _by_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing, scaling: float | None
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest, bounds = max(packing.lengths), packing.bounds
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if packing.causal:
        options["window_size"] = (-1, 0)  # all earlier tokens, no later one
    attended: Any = varlen_attn(query, key, value, bounds, bounds, longest, longest, **options)
    return attended


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scaling: float | None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Adjacent texts of equal length form a batch without padding; texts are sorted by length."""
    import torch

    groups = [(length, length * len(list(group))) for length, group in groupby(packing.lengths)]
    sizes = [size for _, size in groups]
    repeats = query.shape[1] // key.shape[1]
    results = []
    for (length, _), *parts in zip(groups, query.split(sizes), key.split(sizes), value.split(sizes), strict=True):
        q, k, v = (part.unflatten(0, (-1, length)).transpose(1, 2) for part in parts)
        if repeats > 1:
            k, v = (part.repeat_interleave(repeats, dim=1) for part in (k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=packing.causal, scale=scaling
        )
        results.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(results)


def kernel_works(model: PreTrainedModel, causal: bool = False) -> bool:
    """Whether torch's variable-length attention runs on the device of ``model`` and agrees with ordinary attention.

    Where gradients are enabled, they must agree, too.
    """
    import torch

    if model.device.type != "cuda" or model.dtype not in (torch.bfloat16, torch.float16):
        return False
    config: Any = model.config
    heads = int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    try:
        return _kernel_agrees((heads, key_heads), width, model.device, model.dtype, causal)
    except (ImportError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        logger.info("torch's variable-length attention does not run (%s); texts of equal length attend together", error)
        return False


def _kernel_agrees(heads: tuple[int, int], width: int, device: Any, dtype: Any, causal: bool) -> bool:
    import torch

    generator = torch.Generator().manual_seed(1)
    packing = Packing.of(np.array(_PROBE), device, causal=causal)
    inputs = [
        torch.randn((count, sum(_PROBE), width), generator=generator)
        .to(device, dtype)
        .transpose(0, 1)  # as models pass it
        .requires_grad_(torch.is_grad_enabled())
        for count in (*heads, heads[1])
    ]
    query, key, value = inputs
    pairs = [(_by_kernel(query, key, value, packing, None), _by_length(query, key, value, packing, None))]
    if torch.is_grad_enabled():
        pairs += zip(*(torch.autograd.grad(result.square().sum(), inputs) for result in pairs[0]), strict=True)
    return all(bool((a.float() - b.float()).abs().max() < _TOLERANCE) for a, b in pairs)
