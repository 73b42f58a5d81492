"""How the lists of one query were put together, and where a passage stands in the result (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Sequence

from ..scoring.fusion import RankedList, fuse_lists
from ..searching.index import SearchOptions
from .explanation import Standing


def standings(mode: str, lists: Sequence[RankedList], options: SearchOptions, docids: list[str]) -> list[Standing]:
    """Where each of ``docids`` stands; ``lists`` are each signal's, in the order of fusion."""
    fused = fuse_lists(lists, options.fusion, options.rrf_k)
    fusion = options.fusion if len(lists) > 1 else None
    k = options.rrf_k if fusion == "rrf" else None
    ranks = {docid: (rank, score) for rank, (docid, score) in enumerate(fused.hits, start=1)}
    found = []
    for docid in docids:
        rank, score = ranks.get(docid, (None, None))
        parts = fused.contributions(docid)
        found.append(Standing(mode, fusion, options.hits, len(fused.hits), rank, score, k, parts))
    return found
