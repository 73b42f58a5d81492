"""The two ranked lists of one query made into one (METHOD section 5; reciprocal ranks as the usual alternative)."""

from __future__ import annotations

from collections.abc import Mapping

from diffretriever_pyserini.evaluation.runs import ranked
from diffretriever_pyserini.plugin.fusion import fuse_lists, is_short

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
    if fusion == "rrf":
        return reciprocal_ranks(dense, lexical, alpha, rrf_k)
    short = is_short(len(lexical), depth, documents)
    return fuse_lists(dict(dense), dict(lexical), alpha, normalization=True, short=short, integers=True)


def reciprocal_ranks(dense: Hits, lexical: Hits, alpha: float = 1.0, k: int = 60) -> Hits:
    """Reciprocal rank fusion (Cormack et al. 2009): 1 / (k + rank), the lexical side times ``alpha``; ranks from 1."""
    fused: dict[str, float] = {}
    for hits, weight in ((dense, 1.0), (lexical, alpha)):
        for rank, (docid, _) in enumerate(hits, start=1):
            fused[docid] = fused.get(docid, 0.0) + weight / (k + rank)
    return ranked(fused)


def best(scores: Mapping[str, float], depth: int, without: str | None = None) -> Hits:
    """The ``depth`` best of ``scores``, but for the document ``without``."""
    return [hit for hit in ranked(scores) if hit[0] != without][:depth]
