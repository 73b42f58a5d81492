"""Hybrid fusion of two ranked lists (METHOD section 5), the same numbers as ``diffretriever_pyserini.scoring.fuse``.

Pyserini's own formula divides by zero where a list has one hit or equal scores, and takes the smallest positive score
of a short lexical list for its minimum, although every document that is not in it has the score 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..errors import InputError
from ..evaluation.runs import ranked

_LEAST_RANGE = 1e-9


def fuse_lists(
    dense: Mapping[str, float],
    lexical: Mapping[str, float],
    alpha: float = 0.1,
    normalization: bool = False,
    weight_on_dense: bool = False,
    short: bool = False,
    integers: bool = False,
) -> list[tuple[str, float]]:
    """Fuse one query's lists into (docid, score), best first, ties by docid.

    Parameters
    ----------
    dense, lexical : docid → score of the documents each searcher returned.
    alpha : weight of the lexical list against 1 for the dense one (the other way round with ``weight_on_dense``).
    normalization : min-max both lists to [0, 1] and let the weights add up to 1, so that ``alpha=1`` is the paper's
        0.5/0.5. Otherwise raw scores are added, and a document takes the smallest score of the list that misses it.
    short : the lexical list has fewer documents than it had room for, so all others are in it with score 0.
    integers : lexical scores are sums of integers; Lucene lowers tied ones a little, so they are rounded first.

    Raises
    ------
    InputError
        When ``alpha`` is negative or no number.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InputError(f"--alpha {alpha} cannot weigh two lists: it must be a number of at least 0.")
    if integers:
        lexical = {docid: float(round(score)) for docid, score in lexical.items()}
    weights = (alpha, 1.0) if weight_on_dense else (1.0, alpha)
    floor = 0.0 if short else None
    if normalization:
        return add_up([(min_max(dense), weights[0]), (min_max(lexical, floor), weights[1])])
    missing = (_lowest(dense), _lowest(lexical, floor))
    fused = {
        docid: weights[0] * dense.get(docid, missing[0]) + weights[1] * lexical.get(docid, missing[1])
        for docid in dense.keys() | lexical.keys()
    }
    return ranked(fused)


def add_up(lists: Sequence[tuple[Mapping[str, float], float]]) -> list[tuple[str, float]]:
    """Weighted sum of lists with scores in [0, 1], weights scaled to add up to 1; best first, ties by docid.

    A document that a list misses counts 0 there (METHOD section 5, for any number of lists). Raises InputError where
    all weights are 0.
    """
    total = check_weights([weight for _, weight in lists])
    fused: dict[str, float] = {}
    for scores, weight in lists:
        share = weight / total
        for docid, score in scores.items():
            fused[docid] = fused.get(docid, 0.0) + share * score
    return ranked(fused)


def check_weights(weights: Sequence[float]) -> float:
    """The sum of ``weights``; InputError where all are 0."""
    total = sum(weights)
    if not total > 0:
        raise InputError("all weights are 0: give at least one list a weight.")
    return total


def min_max(scores: Mapping[str, float], floor: float | None = None) -> dict[str, float]:
    """Scores moved and scaled to [0, 1]; ``floor`` is the list's minimum where that is no score in it."""
    low = _lowest(scores, floor)
    span = max(max(scores.values(), default=low) - low, _LEAST_RANGE)
    return {docid: (score - low) / span for docid, score in scores.items()}


def is_short(found: int, depth: int, documents: int | None) -> bool:
    """Whether a lexical list of ``found`` documents had room for more; ``documents`` is the collection's size."""
    return found < (depth if documents is None else min(depth, documents))


def _lowest(scores: Mapping[str, float], floor: float | None = None) -> float:
    return min(scores.values(), default=0.0) if floor is None else floor
