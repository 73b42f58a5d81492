"""The order of all ranked lists, which is trec_eval's: float32 scores, best first, equal scores by descending docid.

trec_eval compares ids bytewise, which for UTF-8 is Python's order of strings. Every list that is returned, written, cut
or measured has this order. So a run gets the same measures everywhere, and a short list is the head of a longer one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Hits = list[tuple[str, float]]
"""(docid, score), best first, equal scores by descending docid."""

DECIMALS = 9  # of scores in a run; with six, adjacent scores of a reciprocal rank list would be equal
MOST_TIED = 1 << 16  # documents of one list that are examined for a tie at its cut
_SPARE = 64  # documents requested beyond a list's end; ties at the cut are rarely longer
_GROWTH = 8  # factor of the spare documents in the next request


def as_written(scores: np.ndarray, decimals: int = DECIMALS) -> np.ndarray:
    """``scores`` as the float32 that trec_eval reads from a run with ``decimals``; a second call changes nothing."""
    import numpy as np

    with np.errstate(over="ignore"):
        rounded: np.ndarray = np.round(np.asarray(scores, np.float64), decimals).astype(np.float32)
    return rounded


def trec_eval_order(scores: Mapping[str, float]) -> list[str]:
    """Docids as trec_eval ranks them, for scores of any origin."""
    import numpy as np

    with np.errstate(over="ignore"):
        read = np.fromiter(scores.values(), np.float64, len(scores)).astype(np.float32)
    return [docid for _, docid in sorted(zip(read.tolist(), scores, strict=True), reverse=True)]


def ranked(scores: Mapping[str, float], decimals: int = DECIMALS) -> Hits:
    """``scores`` as a ranked list, each score as :func:`as_written`."""
    import numpy as np

    read = as_written(np.fromiter(scores.values(), np.float64, len(scores)), decimals)
    return [(docid, score) for score, docid in sorted(zip(read.tolist(), scores, strict=True), reverse=True)]


def best(scores: Mapping[str, float], depth: int, without: str | None = None) -> Hits:
    """The ``depth`` best of ``scores``, except the document ``without``."""
    return [hit for hit in ranked(scores) if hit[0] != without][:depth]


def best_rows(
    rows: np.ndarray, scores: np.ndarray, depth: int, docids: Callable[[np.ndarray], list[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """The ``depth`` best of ``rows``, int64 [n], with float32 scores as written; ``docids`` is called for ties only."""
    import numpy as np

    scores = as_written(scores)
    if len(scores) > depth:
        candidates = np.flatnonzero(scores >= np.partition(scores, -depth)[-depth])
        rows, scores = rows[candidates], scores[candidates]
    order = np.argsort(-scores, kind="stable")
    rows, scores = rows[order], scores[order]
    same = scores[1:] == scores[:-1]
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        names = docids(rows[tied])
        by_docid = sorted(zip(scores[tied].tolist(), names, rows[tied].tolist(), strict=True), reverse=True)
        rows[tied] = [row for *_, row in by_docid]
    return rows[:depth], scores[:depth]


def through_ties(
    search: Callable[[Sequence[int], int], Sequence[Mapping[str, float]]], queries: int, depth: int, documents: int
) -> list[dict[str, float]]:
    """Lists of ``depth`` from a ``search`` that cuts ties in another order.

    Parameters
    ----------
    search : takes numbers of queries below ``queries`` and the length of the lists; returns docid → score for each,
        best first. It may leave out documents below the tie at ``depth``. If a list is cut within a tie, it is called
        again for a longer list, of at most ``documents`` or the larger of ``MOST_TIED`` and twice ``depth``.
    """
    depth = max(1, min(depth, documents))
    longest = max(1, min(documents, max(2 * depth, MOST_TIED)))
    spare = _SPARE
    lists: dict[int, dict[str, float]] = {}
    pending: Sequence[int] = range(queries)
    while pending:
        length = min(depth + spare, longest)
        tied = []
        for number, scores in zip(pending, search(pending, length), strict=True):
            hits = ranked(scores)
            lists[number] = dict(hits[:depth])
            if len(hits) >= length and hits[depth - 1][1] == hits[-1][1]:
                tied.append(number)
        pending = tied if length < longest else []
        spare *= _GROWTH
    return [lists[number] for number in range(queries)]


def whole_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Lexical scores rounded to whole numbers."""
    return {docid: whole_score(score) for docid, score in scores.items()}


def whole_score(score: float) -> float:
    """A lexical score rounded to a whole number, because it is a sum of integers: Anserini lowers tied ones by 1e-6."""
    return float(round(score))
