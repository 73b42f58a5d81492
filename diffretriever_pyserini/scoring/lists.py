"""The ranked lists of one query made into one (METHOD section 5; reciprocal ranks as the usual alternative)."""

from __future__ import annotations

from collections.abc import Mapping

from ..evaluation.runs import ranked
from .fusion import add_up, check_weights, is_short, min_max

Hits = list[tuple[str, float]]
"""(docid, score), best first, equal scores by docid."""


def fuse_hits(
    dense: Hits,
    lexical: Hits,
    depth: int,
    documents: int,
    alpha: float = 1.0,
    fusion: str = "minmax",
    rrf_k: int = 60,
) -> Hits:
    """Fuse one query's lists, each of at most ``depth`` hits out of ``documents``.

    ``minmax`` is the paper's: both lists moved and scaled to [0, 1], weights ``1/(1 + alpha)`` for the dense and
    ``alpha/(1 + alpha)`` for the lexical side. ``rrf`` is :func:`reciprocal_ranks`.
    """
    return fuse_sides({"dense": dense, "lexical": lexical}, {"lexical": alpha}, depth, documents, fusion, rrf_k)


def fuse_sides(
    sides: Mapping[str, Hits],
    weights: Mapping[str, float],
    depth: int,
    documents: int,
    fusion: str = "minmax",
    rrf_k: int = 60,
) -> Hits:
    """:func:`fuse_hits` for any of the sides dense, multi and lexical; a side without a weight has the weight 1.

    A lexical list shorter than ``depth`` and ``documents`` says that all other documents score 0, which then is its
    minimum.
    """
    if fusion == "rrf":
        return reciprocal_ranks(*((hits, weights.get(side, 1.0)) for side, hits in sides.items()), k=rrf_k)
    return add_up(
        [
            (min_max(*scores_and_floor(side, hits, depth, documents)), weights.get(side, 1.0))
            for side, hits in sides.items()
        ]
    )


def scores_and_floor(side: str, hits: Hits, depth: int, documents: int) -> tuple[dict[str, float], float | None]:
    """Scores by docid of one side's list, and its minimum where that is no score in it (see :func:`fuse_sides`)."""
    if side != "lexical":
        return dict(hits), None
    scores = {docid: float(round(score)) for docid, score in hits}
    return scores, 0.0 if is_short(len(hits), depth, documents) else None


def reciprocal_ranks(*lists: tuple[Hits, float], k: int = 60) -> Hits:
    """Reciprocal rank fusion (Cormack et al. 2009): weight / (k + rank), added up over (hits, weight); ranks from 1.

    Raises InputError where all weights are 0.
    """
    check_weights([weight for _, weight in lists])
    fused: dict[str, float] = {}
    for hits, weight in lists:
        for rank, (docid, _) in enumerate(hits, start=1):
            fused[docid] = fused.get(docid, 0.0) + weight / (k + rank)
    return ranked(fused)


def best(scores: Mapping[str, float], depth: int, without: str | None = None) -> Hits:
    """The ``depth`` best of ``scores``, but for the document ``without``."""
    return [hit for hit in ranked(scores) if hit[0] != without][:depth]
