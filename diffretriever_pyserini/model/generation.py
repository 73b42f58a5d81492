"""Reading K positions of a causal model one after another: the read-out *next token* (docs/method.md §8.1).

The prompt is read once, into a cache of keys and values. Position 0 is its last token; position k is the k-th greedy
word. A text whose word ends the answer leaves the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .backbones.causal import CausalBackbone


def read_words(
    backbone: CausalBackbone,
    ids: torch.Tensor,
    mask: torch.Tensor,
    k: int,
    stops: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states [B, K, H], logits [B, K, V] (or [B, K, C]) and which positions count, bool [B, K].

    Parameters
    ----------
    ids, mask : int64 [B, L], prompts with padding (mask 0) on the left.
    stops : ids of tokens that end an answer and do not count (never position 0); None reads all K positions.
    columns : int64 [B, C], the rows of the head that are wanted for each text; None is all.
    """
    import torch

    count, device = len(ids), ids.device
    cache = backbone.new_cache()
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    kept = torch.zeros((count, k), dtype=torch.bool, device=device)
    active = torch.arange(count, device=device)
    hidden = logits = None
    for step in range(k):
        states = backbone.last_states(ids, mask, positions, cache)
        rows = states.unsqueeze(1)
        wanted = None if columns is None else columns[active]
        if step == k - 1 and wanted is not None:  # no word follows, so the other columns are not needed
            every, read = None, backbone.head_columns(rows, wanted).squeeze(1)
        else:
            every = backbone.head(states)
            read = every if wanted is None else every.gather(1, wanted)
        if hidden is None or logits is None:
            hidden = states.new_zeros((count, k, states.shape[1]))
            logits = read.new_zeros((count, k, read.shape[1]))
        hidden[active, step], logits[active, step], kept[active, step] = states, read, True
        if step == k - 1 or every is None:
            break
        words = every.argmax(dim=1)
        if stops is not None:
            going = (~torch.isin(words, stops)).nonzero().squeeze(1)
            if len(going) == 0:
                break
            if len(going) < len(words):
                cache.batch_select_indices(going)
                active, words, mask, positions = active[going], words[going], mask[going], positions[going]
        ids = words.unsqueeze(1)
        mask = torch.cat([mask, mask.new_ones((len(words), 1))], dim=1)
        positions = positions[:, -1:] + 1
    assert hidden is not None and logits is not None
    return hidden, logits, kept
