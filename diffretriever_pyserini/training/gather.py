"""Passages of all devices as negatives of every query: all_gather that sends gradients back to the rows' owners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def devices() -> int:
    """How many processes train together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    import torch.distributed as dist

    return dist.get_rank() if devices() > 1 else 0


def gather_rows(rows: Tensor) -> Tensor:
    """Rows [N, ...] of every device one below the other, by rank; each device must have the same N.

    The backward pass adds up every device's gradient of a row, so the mean over devices (which DDP takes) is the
    gradient of the loss over the whole global batch.
    """
    import torch
    from torch.distributed.nn.functional import all_gather

    if devices() == 1:
        return rows
    parts: Any = all_gather(rows.contiguous())
    return torch.cat(list(parts))


def gather_ids(ids: Tensor, fill: int = -1) -> Tensor:
    """Integer rows [N, C] of every device, by rank; C may differ and is filled up with ``fill``."""
    import torch
    import torch.distributed as dist
    from torch.nn.functional import pad

    if devices() == 1:
        return ids
    width = torch.tensor(ids.shape[1], device=ids.device)
    dist.all_reduce(width, op=dist.ReduceOp.MAX)
    wide = pad(ids, (0, int(width) - ids.shape[1]), value=fill).contiguous()
    parts = [torch.empty_like(wide) for _ in range(devices())]
    dist.all_gather(parts, wide)
    return torch.cat(parts)
