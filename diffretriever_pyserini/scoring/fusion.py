"""Fusion of one query's ranked lists (docs/method.md §5), which says what each list added to each score.

Pyserini's own formula divides by zero where a list has one hit or equal scores, and takes the smallest positive score
of a short lexical list for its minimum, although every document that is not in it has the score 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError
from .pairwise import low_and_high, min_max
from .ranking import Hits, ranked

FUSIONS = ("minmax", "rrf")
RRF_K = 60


@dataclass(frozen=True, slots=True)
class RankedList:
    """One signal's list for one query.

    Attributes
    ----------
    signal : ``dense``, ``multi`` or ``lexical``.
    hits : best first.
    weight : against the other lists; it need not add up to 1 with theirs.
    floor : the list's minimum where that is no score in it; None takes its lowest score.
    """

    signal: str
    hits: Hits
    weight: float = 1.0
    floor: float | None = None

    def find(self, docid: str) -> tuple[int, float] | tuple[None, None]:
        """Rank (from 1) and score of a document; None for both where the list misses it."""
        ranks = enumerate(self.hits, start=1)
        return next(((rank, score) for rank, (one, score) in ranks if one == docid), (None, None))


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one list gave to one document's score.

    Attributes
    ----------
    signal, listed : of the list, and its length.
    rank, score : of the document in it; None where the list misses it.
    low, high : the scores that min-max makes 0 and 1; None for another fusion and for an empty list.
    scaled : the score between these, 0 where the list misses the document; None for another fusion.
    weight : of the list, for min-max scaled so that all add up to 1.
    adds : to the fused score.
    """

    signal: str
    listed: int
    rank: int | None
    score: float | None
    low: float | None
    high: float | None
    scaled: float | None
    weight: float
    adds: float


@dataclass(frozen=True)
class Fused:
    """The result of a fusion.

    Attributes
    ----------
    lists : what was fused.
    docids : every document of the lists.
    adds : float64 [lists, documents], what each list adds to each score.
    weights : one for each list, as it was used.
    scaled : float64 [lists, documents], NaN where a list misses the document; None unless fused by min-max.
    """

    lists: tuple[RankedList, ...]
    docids: tuple[str, ...]
    adds: np.ndarray
    weights: tuple[float, ...]
    scaled: np.ndarray | None = None

    @cached_property
    def hits(self) -> Hits:
        """Every document, best first."""
        return ranked(dict(zip(self.docids, self.adds.sum(axis=0).tolist(), strict=True)))

    def contributions(self, docid: str) -> tuple[Contribution, ...]:
        """What each list gave to the score of ``docid``."""
        column = self.docids.index(docid) if docid in self.docids else None
        parts = []
        for i, one in enumerate(self.lists):
            rank, score = one.find(docid)
            low = high = scaled = None
            if self.scaled is not None:
                scaled = 0.0 if rank is None or column is None else float(self.scaled[i, column])
                scores = [score for _, score in one.hits]
                low = min(scores, default=None) if one.floor is None else one.floor
                high = max(scores, default=None)
            adds = 0.0 if column is None else float(self.adds[i, column])
            parts.append(Contribution(one.signal, len(one.hits), rank, score, low, high, scaled, self.weights[i], adds))
        return tuple(parts)


def fuse_lists(lists: Sequence[RankedList], fusion: str = "minmax", rrf_k: int = RRF_K) -> Fused:
    """Fuse one query's ``lists``; a single one is its own result.

    ``minmax`` is the paper's for any number of lists: scores moved and scaled to [0, 1], a document that a list misses
    counts 0 there, weights scaled to add up to 1. ``rrf`` adds weight / (``rrf_k`` + rank) (Cormack et al. 2009).

    Raises
    ------
    InputError
        For an unknown fusion, and where all weights are 0.
    """
    if len(lists) == 1:
        docids, scores = _table(lists)
        return Fused(tuple(lists), docids, scores, (1.0,))
    if fusion not in FUSIONS:
        raise InputError(f"fusion {fusion!r} is not one of {', '.join(FUSIONS)}.")
    weights = [one.weight for one in lists]
    total = sum(weights)
    if not total > 0:
        raise InputError("all weights are 0: give at least one list a weight.")
    docids, scores = _table(lists)
    if fusion == "rrf":
        by_rank = [[(docid, float(rank)) for rank, (docid, _) in enumerate(one.hits, start=1)] for one in lists]
        _, ranks = _table([RankedList(one.signal, hits) for one, hits in zip(lists, by_rank, strict=True)])
        adds = np.array(weights)[:, None] / (rrf_k + ranks)
        return Fused(tuple(lists), docids, np.nan_to_num(adds), tuple(weights))
    shares = tuple(weight / total for weight in weights)
    floors = np.array([[np.nan if one.floor is None else one.floor] for one in lists])
    scaled = min_max(scores, floors)
    return Fused(tuple(lists), docids, np.array(shares)[:, None] * np.nan_to_num(scaled), shares, scaled)


def add_raw(lists: Sequence[RankedList]) -> Fused:
    """Weighted sum of raw scores, Pyserini's default: a list that misses a document counts its lowest score for it."""
    docids, scores = _table(lists)
    floors = np.array([[np.nan if one.floor is None else one.floor] for one in lists])
    low, _ = low_and_high(scores, floors)
    weights = tuple(one.weight for one in lists)
    return Fused(tuple(lists), docids, np.array(weights)[:, None] * np.where(np.isnan(scores), low, scores), weights)


def pyserini_weights(alpha: float, weight_on_dense: bool = False) -> tuple[float, float]:
    """Weights of the dense and the lexical list that Pyserini's ``--alpha`` means.

    Raises InputError where ``alpha`` is negative or no number.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InputError(f"--alpha {alpha} cannot weigh two lists: it must be a number of at least 0.")
    return (alpha, 1.0) if weight_on_dense else (1.0, alpha)


def lexical_floor(listed: int, depth: int, documents: int | None) -> float | None:
    """Minimum of a lexical list of ``listed`` documents that had room for ``depth``.

    A shorter one says that all other documents of the collection score 0, which then is its minimum; None where it is
    full, or holds the whole collection of ``documents``.
    """
    return 0.0 if listed < (depth if documents is None else min(depth, documents)) else None


def _table(lists: Sequence[RankedList]) -> tuple[tuple[str, ...], np.ndarray]:
    """The documents of all lists, in the order in which they occur, and float64 [lists, documents], NaN for a miss."""
    column = {docid: i for i, docid in enumerate(dict.fromkeys(docid for one in lists for docid, _ in one.hits))}
    scores = np.full((len(lists), len(column)), np.nan)
    for row, one in zip(scores, lists, strict=True):
        if one.hits:
            docids, values = zip(*one.hits, strict=True)
            row[[column[docid] for docid in docids]] = values
    return tuple(column), scores
