"""How the lists of one query were put together, and where a passage stands in the result (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Mapping

from ..scoring.fusion import min_max
from ..scoring.lists import Hits, fuse_sides, scores_and_floor
from ..searching.index import SearchOptions
from .explanation import Part, Standing


def standings(
    mode: str, lists: Mapping[str, Hits], documents: int, options: SearchOptions, docids: list[str]
) -> list[Standing]:
    """Where each of ``docids`` stands.

    Parameters
    ----------
    lists : each side's list, in the order of fusion, at most ``options.listed(...)`` long.
    documents : size of the collection.
    """
    weights, depth = options.all_weights, options.listed(len(lists))
    if len(lists) == 1:
        final, fusion = next(iter(lists.values())), None
        weights = dict.fromkeys(lists, 1.0)
    else:
        fusion = options.fusion
        final = fuse_sides(lists, weights, depth, documents, fusion, options.rrf_k)
    ranks = {docid: (rank, score) for rank, (docid, score) in enumerate(final, start=1)}
    total = sum(weights.get(side, 1.0) for side in lists)
    found = []
    for docid in docids:
        rank, score = ranks.get(docid, (None, None))
        parts = []
        for side, hits in lists.items():
            weight = weights.get(side, 1.0)
            if fusion == "minmax":
                parts.append(_scaled(side, hits, docid, weight / total, depth, documents))
            else:
                parts.append(_ranked(side, hits, docid, weight, options.rrf_k if fusion else None))
        k = options.rrf_k if fusion == "rrf" else None
        found.append(Standing(mode, fusion, options.hits, len(final), rank, score, k, tuple(parts)))
    return found


def _ranked(side: str, hits: Hits, docid: str, weight: float, rrf_k: int | None) -> Part:
    """A list by its ranks, or (``rrf_k`` None) the only list."""
    rank, score = _place(hits, docid)
    adds = score if rrf_k is None else weight / (rrf_k + rank) if rank else 0.0
    return Part(side, len(hits), rank, score, None, None, None, weight, adds or 0.0)


def _scaled(side: str, hits: Hits, docid: str, weight: float, depth: int, documents: int) -> Part:
    """A list by its scores moved and scaled to [0, 1]."""
    scores, floor = scores_and_floor(side, hits, depth, documents)
    rank, score = _place(hits, docid)
    share = min_max(scores, floor).get(docid, 0.0)
    low = min(scores.values(), default=None) if floor is None else floor
    high = max(scores.values(), default=None)
    return Part(side, len(hits), rank, score, low, high, share, weight, weight * share)


def _place(hits: Hits, docid: str) -> tuple[int | None, float | None]:
    return next(((rank, score) for rank, (one, score) in enumerate(hits, start=1) if one == docid), (None, None))
