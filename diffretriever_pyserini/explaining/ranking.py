"""The rank of a passage in a search, and what each list contributes to its score, as fusion reports it."""

from __future__ import annotations

from collections.abc import Sequence

from ..scoring.fusion import Fused
from ..searching.options import SearchOptions
from .records import RankedEntry


def ranked_entries(mode: str, fused: Fused, options: SearchOptions, docids: Sequence[str]) -> list[RankedEntry]:
    """The entry of each of ``docids`` in the result of a search, ``fused``."""
    fusion = options.fusion if len(fused.lists) > 1 else None
    rrf_k = options.rrf_k if fusion == "rrf" else None
    ranks = {docid: (rank, score) for rank, (docid, score) in enumerate(fused.hits, start=1)}
    entries = []
    for docid in docids:
        rank, score = ranks.get(docid, (None, None))
        contributions = fused.contributions(docid)
        entries.append(RankedEntry(mode, fusion, options.hits, len(fused.hits), rank, score, rrf_k, contributions))
    return entries
