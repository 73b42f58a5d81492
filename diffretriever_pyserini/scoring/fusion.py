"""Fusion of one query's ranked lists (docs/method.md §5), with the contribution of each list to each score.

Pyserini's own formula divides by zero when a list has one hit or equal scores. It also takes the smallest positive
score of a short lexical list as its minimum, although every document outside that list scores 0.
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
    weight : relative to the other lists; the weights need not add up to 1.
    floor : the list's minimum, if it is not the lowest score in the list; None takes that score.
    """

    signal: str
    hits: Hits
    weight: float = 1.0
    floor: float | None = None

    def find(self, docid: str) -> tuple[int, float] | tuple[None, None]:
        """Rank (from 1) and score of a document; None for both if the list does not contain it."""
        for rank, (hit, score) in enumerate(self.hits, start=1):
            if hit == docid:
                return rank, score
        return None, None


@dataclass(frozen=True, slots=True)
class Contribution:
    """The contribution of one list to one document's score.

    Attributes
    ----------
    signal, listed : signal and length of the list.
    rank, score : of the document in the list; None if the list does not contain it.
    low, high : the scores that min-max maps to 0 and 1; None for another fusion and for an empty list.
    scaled : the score after min-max, 0 if the list does not contain the document; None for another fusion.
    weight : of the list; for min-max, scaled so that all weights add up to 1.
    adds : what is added to the fused score.
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
    lists : the fused lists.
    docids : every document of the lists.
    adds : float64 [lists, documents], what each list adds to each score.
    weights : one per list, as used.
    scaled : float64 [lists, documents], NaN where a list lacks the document; None unless fused by min-max.
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
        """The contribution of each list to the score of ``docid``."""
        column = self.docids.index(docid) if docid in self.docids else None
        parts = []
        for i, ranked_list in enumerate(self.lists):
            signal, hits, floor = ranked_list.signal, ranked_list.hits, ranked_list.floor
            rank, score = ranked_list.find(docid)
            low = high = scaled = None
            if self.scaled is not None:
                scaled = 0.0 if rank is None or column is None else float(self.scaled[i, column])
                scores = [score for _, score in hits]
                low = min(scores, default=None) if floor is None else floor
                high = max(scores, default=None)
            adds = 0.0 if column is None else float(self.adds[i, column])
            parts.append(Contribution(signal, len(hits), rank, score, low, high, scaled, self.weights[i], adds))
        return tuple(parts)


def fuse_lists(lists: Sequence[RankedList], fusion: str = "minmax", rrf_k: int = RRF_K) -> Fused:
    """Fuse one query's ``lists``; a single list is returned as it is.

    ``minmax`` is the paper's fusion for any number of lists: scores are scaled to [0, 1], a document counts 0 in a list
    that does not contain it, and weights are scaled to add up to 1. ``rrf`` adds weight / (``rrf_k`` + rank) (Cormack
    et al. 2009).

    Raises
    ------
    InputError
        For an unknown fusion, and when all weights are 0.
    """
    if len(lists) == 1:
        docids, scores = _table(lists)
        return Fused(tuple(lists), docids, scores, (1.0,))
    if fusion not in FUSIONS:
        raise InputError(f"fusion {fusion!r} is not one of {', '.join(FUSIONS)}.")
    weights = [ranked_list.weight for ranked_list in lists]
    total = sum(weights)
    if not total > 0:
        raise InputError("all weights are 0: give at least one list a weight above 0.")
    docids, scores = _table(lists)
    if fusion == "rrf":
        docid_ranks = [[(docid, float(rank)) for rank, (docid, _) in enumerate(one.hits, start=1)] for one in lists]
        _, ranks = _table([RankedList(one.signal, hits) for one, hits in zip(lists, docid_ranks, strict=True)])
        adds = np.array(weights)[:, None] / (rrf_k + ranks)
        return Fused(tuple(lists), docids, np.nan_to_num(adds), tuple(weights))
    shares = tuple(weight / total for weight in weights)
    floors = np.array([[np.nan if one.floor is None else one.floor] for one in lists])
    scaled = min_max(scores, floors)
    return Fused(tuple(lists), docids, np.array(shares)[:, None] * np.nan_to_num(scaled), shares, scaled)


def add_raw(lists: Sequence[RankedList]) -> Fused:
    """Weighted sum of raw scores, Pyserini's default: a document that a list lacks counts its lowest score."""
    docids, scores = _table(lists)
    floors = np.array([[np.nan if one.floor is None else one.floor] for one in lists])
    low, _ = low_and_high(scores, floors)
    weights = tuple(one.weight for one in lists)
    return Fused(tuple(lists), docids, np.array(weights)[:, None] * np.where(np.isnan(scores), low, scores), weights)


def pyserini_weights(alpha: float, weight_on_dense: bool = False) -> tuple[float, float]:
    """Weights of the dense and the lexical list for Pyserini's ``--alpha``.

    Raises InputError when ``alpha`` is negative or not a finite number.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InputError(f"--alpha {alpha} must be a finite number of at least 0.")
    return (alpha, 1.0) if weight_on_dense else (1.0, alpha)


def lexical_floor(listed: int, depth: int, documents: int | None) -> float | None:
    """Minimum of a lexical list of ``listed`` documents that was cut at ``depth``.

    In a shorter list, all other documents of the collection score 0, so its minimum is 0. None for a full list and for
    one that holds the whole collection of ``documents``.
    """
    full = depth if documents is None else min(depth, documents)
    return 0.0 if listed < full else None


def _table(lists: Sequence[RankedList]) -> tuple[tuple[str, ...], np.ndarray]:
    """All documents in order of first occurrence, and scores float64 [lists, documents], NaN where a list lacks one."""
    column = {docid: i for i, docid in enumerate(dict.fromkeys(docid for one in lists for docid, _ in one.hits))}
    scores = np.full((len(lists), len(column)), np.nan)
    for row, one in zip(scores, lists, strict=True):
        if one.hits:
            docids, values = zip(*one.hits, strict=True)
            row[[column[docid] for docid in docids]] = values
    return tuple(column), scores
