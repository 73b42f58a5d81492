"""Exchange between the processes of a run: passages with gradients, sharded weights, development vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

_PIECE = 1 << 24  # values sent at a time


def devices() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process."""
    return dist.get_rank() if devices() > 1 else 0


class _GatherRows(torch.autograd.Function):
    # torch's own all_gather with gradients (deprecated) mixes up values of non-contiguous gradients under gloo.
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(devices())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank() * ctx.count : (rank() + 1) * ctx.count]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows [N, ...] of every device, concatenated by rank; each device must have the same N.

    The backward pass adds up every device's gradient of a row, so the mean over devices (which DDP takes) is the
    gradient of the loss over the global batch.
    """
    return rows if devices() == 1 else _GatherRows.apply(rows.contiguous())


def gather_ids(ids: Tensor, fill: int = -1) -> Tensor:
    """Integer rows [N, C] of every device, by rank; C may differ and is padded with ``fill``."""
    if devices() == 1:
        return ids
    width = torch.tensor(ids.shape[1], device=ids.device)
    dist.all_reduce(width, op=dist.ReduceOp.MAX)
    wide = pad(ids, (0, int(width) - ids.shape[1]), value=fill).contiguous()
    parts = [torch.empty_like(wide) for _ in range(devices())]
    dist.all_gather(parts, wide)
    return torch.cat(parts)


def whole_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` on the first process's CPU, with tensors that FSDP shards gathered one by one; empty on the others."""
    from torch.distributed.tensor import DTensor

    whole = {}
    for name, tensor in state.items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor  # every process takes part
        if rank() == 0:
            whole[name] = gathered.detach().cpu()
    return whole


def sum_to_first(values: np.ndarray, device: torch.device) -> np.ndarray:
    """The sum of every process's ``values`` on the first one, exchanged through ``device`` in pieces of bounded size.

    The values on the other processes are undefined. Shape and type must be the same on all.
    """
    if devices() > 1:
        for piece in torch.from_numpy(values).view(-1).split(_PIECE):
            moved = piece.to(device, copy=True)
            dist.reduce(moved, 0)
            piece.copy_(moved)
    return values


def sum_to_all(values: np.ndarray, device: torch.device) -> np.ndarray:
    """The sum of every process's ``values``, on each of them."""
    moved = torch.from_numpy(values).to(device)
    if devices() > 1:
        dist.all_reduce(moved)
    return moved.cpu().numpy()
