"""Ranked lists: (docid, score), best first, equal scores by docid."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter

Hits = list[tuple[str, float]]
"""(docid, score), best first, equal scores by docid."""

_SCORE = itemgetter(1)


def ranked(scores: Mapping[str, float]) -> Hits:
    """(docid, score) by falling score; equal scores by docid, so that the order never depends on chance."""
    hits = sorted(scores.items(), key=_SCORE, reverse=True)
    if len(set(scores.values())) == len(hits):
        return hits
    return [hit for _, tied in groupby(hits, _SCORE) for hit in sorted(tied)]


def best(scores: Mapping[str, float], depth: int, without: str | None = None) -> Hits:
    """The ``depth`` best of ``scores``, but for the document ``without``."""
    return [hit for hit in ranked(scores) if hit[0] != without][:depth]


def whole_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Lexical scores as the sums of integers that they are: Anserini lowers tied ones by about 1e-6."""
    return {docid: float(round(score)) for docid, score in scores.items()}
