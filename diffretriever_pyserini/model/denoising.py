"""Reading K mask positions in S >= 1 denoising steps (docs/method.md §3).

One step reads all positions from one forward pass. With more steps, the most confident positions are decoded first, and
their words are in the sequence while the others are read. A position is read at the step that decodes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    # ids [T] -> (hidden [B, K, H], logits [B, K, V]) at the K positions
    Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def step_sizes(k: int, steps: int, schedule: str) -> list[int]:
    """How many positions each step decodes; the last step decodes the rest.

    ``trained`` divides K evenly (4 in 2 steps: 2, 2). ``zero_shot`` follows the samplers' decreasing time steps, with
    sizes cut towards zero (4 in 2 steps: 1, 3).
    """
    times = np.linspace(1, 0.001, steps + 1)
    sizes: list[int] = []
    left = k
    for step in range(steps):
        if step == steps - 1:
            size = left
        elif schedule == "trained":
            size = max(1, k // steps)
        else:
            size = max(1, int(left * (1 - times[step + 1] / times[step])))
        sizes.append(min(size, left))
        left -= sizes[-1]
    return [size for size in sizes if size]


def read_positions(
    forward: Forward, ids: torch.Tensor, positions: torch.Tensor, steps: int, schedule: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [B, K, H] and logits [B, K, V], each position as of the step that decodes it.

    ``ids`` [T] are those of all texts, with the masks of each at ``positions`` [B, K]; they are not changed.
    """
    import torch

    hidden, logits = forward(ids)
    sizes = step_sizes(positions.shape[1], steps, schedule)
    if len(sizes) == 1:
        return hidden, logits
    ids, read_hidden, read_logits = ids.clone(), hidden.clone(), logits.clone()
    open_ = torch.ones(positions.shape, dtype=torch.bool, device=ids.device)
    for i, size in enumerate(sizes):
        if i:
            hidden, logits = forward(ids)
            read_hidden[open_], read_logits[open_] = hidden[open_], logits[open_]
        chosen = confidence(logits).masked_fill(~open_, -torch.inf).topk(size, dim=1).indices
        words = logits.argmax(dim=2).gather(1, chosen)
        ids[positions.gather(1, chosen)] = words
        open_.scatter_(1, chosen, False)
    return read_hidden, read_logits


def confidence(logits: torch.Tensor) -> torch.Tensor:
    """Negative entropy [B, K] of each position's distribution; logits [B, K, V]."""
    import torch

    probabilities = torch.softmax(logits.float(), dim=-1)
    return (probabilities * torch.log(probabilities + 1e-10)).sum(dim=-1)
