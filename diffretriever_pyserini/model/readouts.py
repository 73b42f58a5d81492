"""Read-outs: which positions of a text are read, and what becomes of them (docs/method.md §8).

    mask         the K mask positions of one bidirectional pass           DiffRetriever (2605.07210)
    next_token   the end of the prompt, then K - 1 words one by one       PromptReps (2404.18424)
    mean         the mean of all positions, without a prompt              DiffEmbed (2505.15045)
    last_token   the last position, without a prompt                      RepLLaMA (2310.08319)

The first two read K positions, each with a vector and a distribution over the vocabulary; the output head runs on these
positions only. The other two give one vector and no terms, and need no head. Pure functions; generation.py reads words
one by one, and inference.py runs the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .layout import Layout, TokenTable

Readout = Literal["mask", "next_token", "mean", "last_token"]
READOUTS = get_args(Readout)
WITHOUT_HEAD = ("mean", "last_token")


def has_terms(readout: str) -> bool:
    """Whether the output head is read: K positions after a prompt, with term weights; else one vector alone."""
    return readout not in WITHOUT_HEAD


def no_terms(encoder: str, readout: str) -> str | None:
    """The sentence that refuses lexical use of an ``encoder`` whose ``readout`` gives a vector alone; else None."""
    if has_terms(readout):
        return None
    return (
        f"{encoder}: its read-out {readout} gives one vector per text and no term weights, so it has no lexical "
        "signal; use it dense, or choose the read-out mask or next_token"
    )


def misfit(readout: str, family: str) -> str | None:
    """Why ``readout`` does not fit a model of ``family``; None if it does."""
    if family == "causal":
        if readout != "mask":
            return None
        return (
            "a causal model has no mask token, and no position sees a later one; use readout next_token, mean or "
            "last_token"
        )
    if readout == "next_token":
        return "this model predicts masked tokens, not the next one; use readout mask or mean"
    if readout == "last_token":
        return (
            "in a model with full attention every position sees the whole text, so the last one has no special role; "
            "use readout mask or mean"
        )
    return None


def positions_read(table: TokenTable, layout: Layout) -> np.ndarray:
    """int64 [N, K]: offsets of the K masks of each sequence; without masks of its last token, and K - 1 after it."""
    import numpy as np

    if layout.masks:
        return table.mask_positions(layout)
    return (table.starts + table.lengths - 1)[:, None] + np.arange(layout.k)


def mean_states(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean of the states of each sequence, float32 [N, H], zero for an empty one; ``states`` [T, H] are in order."""
    import torch

    means: torch.Tensor = torch.segment_reduce(states.float(), "mean", lengths=lengths, initial=0)
    return means
