"""Which vector met which, and which terms both sides have. Pure functions of representations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .. import scoring
from ..model.method import pool
from .explanation import Meeting, Overlap, Term


def meet(query: np.ndarray, passage: np.ndarray) -> Meeting:
    """``query`` [K_q, H] against ``passage`` [K_p, H]."""
    query, passage = query.astype(np.float32), passage.astype(np.float32)
    cells = query @ passage.T
    no_query, no_passage = ~query.any(axis=1), ~passage.any(axis=1)
    there = np.where(no_passage[None, :], -np.inf, cells)
    best, gains = there.argmax(axis=1), np.maximum(cells.max(axis=1), 0)
    scores = [int(j) if gain > 0 else None for j, gain in zip(best, gains, strict=True)]
    return Meeting(
        cells=tuple(map(tuple, cells.tolist())),
        best=tuple(scores),
        gains=tuple(gains.tolist()),
        empty_query=tuple(no_query.tolist()),
        empty_passage=tuple(no_passage.tolist()),
        score=float(scoring.maxsim(query[None], passage[None])[0, 0]),
        pooled=float(scoring.pooled_scores(pool(query[None]), pool(passage[None]))[0, 0]),
    )


def mean_cosine(one: np.ndarray, other: np.ndarray) -> float | None:
    """Mean cosine of two passages' vectors [K, H] at the places where both have one; None where there is none."""
    if one.shape != other.shape:
        return None
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    there = lengths > 0
    if not there.any():
        return None
    return float(((one * other).sum(axis=1)[there] / lengths[there]).mean())


def overlap(
    query: Mapping[str, int],
    passage: Mapping[str, int],
    shown: Callable[[str], str],
    top: int,
    whole: bool = True,
) -> Overlap:
    """Impacts of both sides by term; ``whole`` is False where ``passage`` has the query's terms only."""

    def terms(chosen: set[str]) -> list[Term]:
        found = [Term(term, shown(term), query.get(term, 0), passage.get(term, 0)) for term in chosen]
        return sorted(found, key=lambda one: (-one.share, -one.query, -one.passage, one.term))

    matched = {term for term, impact in passage.items() if impact > 0 and term in query}
    others = strongest(set(passage) - matched, passage, top) if whole else None
    return Overlap(
        matched=tuple(terms(matched)),
        query_only=tuple(terms(strongest(set(query) - matched, query, top))),
        passage_only=None if others is None else tuple(terms(others)),
        query_terms=len(query),
        passage_terms=len(passage) if whole else None,
    )


def strongest(terms: set[str], impacts: Mapping[str, int], top: int) -> set[str]:
    """The ``top`` of ``terms`` by impact."""
    return set(sorted(terms, key=lambda term: (-impacts[term], term))[:top])
