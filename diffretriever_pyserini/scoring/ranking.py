"""The one order of ranked lists, trec_eval's: scores as float32, best first, and of equal ones the last docid first.

trec_eval compares ids bytewise, which for UTF-8 is Python's order of strings. Every list that is returned, written, cut
or measured has this order, so that a run evaluates alike anywhere and a short list is the head of a long one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Hits = list[tuple[str, float]]
"""(docid, score), best first, equal scores by falling docid."""

DECIMALS = 9  # of scores in a run; six would make neighbours of a reciprocal rank list equal
MOST_TIED = 1 << 16  # documents of one list that are looked at for a tie at its cut
_SPARE = 64  # documents asked for beyond a list's end; ties at the cut are seldom longer
_MORE = 8  # times as many spare ones at each further attempt


def as_written(scores: np.ndarray, decimals: int = DECIMALS) -> np.ndarray:
    """float32 that trec_eval reads where ``scores`` are written with so many ``decimals``; written again it stays."""
    import numpy as np

    with np.errstate(over="ignore"):
        rounded: np.ndarray = np.round(np.asarray(scores, np.float64), decimals).astype(np.float32)
    return rounded


def trec_eval_order(scores: Mapping[str, float]) -> list[str]:
    """Docids as trec_eval ranks them, whoever wrote the scores."""
    import numpy as np

    with np.errstate(over="ignore"):
        read = np.fromiter(scores.values(), np.float64, len(scores)).astype(np.float32)
    return [docid for _, docid in sorted(zip(read.tolist(), scores, strict=True), reverse=True)]


def ranked(scores: Mapping[str, float], decimals: int = DECIMALS) -> Hits:
    """The order of ``scores``, each as :func:`as_written`."""
    import numpy as np

    read = as_written(np.fromiter(scores.values(), np.float64, len(scores)), decimals)
    return [(docid, score) for score, docid in sorted(zip(read.tolist(), scores, strict=True), reverse=True)]


def best(scores: Mapping[str, float], depth: int, without: str | None = None) -> Hits:
    """The ``depth`` best of ``scores``, but for the document ``without``."""
    return [hit for hit in ranked(scores) if hit[0] != without][:depth]


def best_rows(
    rows: np.ndarray, scores: np.ndarray, depth: int, docids: Callable[[np.ndarray], list[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """The ``depth`` best of ``rows``, int64 [n], and their scores as written, float32; ``docids`` is asked for ties."""
    import numpy as np

    scores = as_written(scores)
    if len(scores) > depth:
        kept = np.flatnonzero(scores >= np.partition(scores, -depth)[-depth])
        rows, scores = rows[kept], scores[kept]
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
    """Lists of ``depth`` from a ``search`` that cuts ties in an order of its own.

    Parameters
    ----------
    search : takes numbers of queries below ``queries`` and how many documents to list; returns docid → score for each,
        best first. Where a list's cut is in the midst of a tie it is asked again for a longer one: for all of the
        ``documents``, or ``MOST_TIED``, or twice ``depth``, at most.
    """
    depth = max(1, min(depth, documents))
    most = max(1, min(documents, max(2 * depth, MOST_TIED)))
    spare = _SPARE
    lists: dict[int, dict[str, float]] = {}
    asked: Sequence[int] = range(queries)
    while asked:
        wanted, tied = min(depth + spare, most), []
        for number, scores in zip(asked, search(asked, wanted), strict=True):
            hits = ranked(scores)
            lists[number] = dict(hits[:depth])
            if len(hits) >= wanted and hits[depth - 1][1] == hits[-1][1]:
                tied.append(number)
        asked, spare = tied if wanted < most else [], _MORE * spare
    return [lists[number] for number in range(queries)]


def whole_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Lexical scores as the sums of integers that they are: Anserini lowers tied ones by about 1e-6."""
    return {docid: float(round(score)) for docid, score in scores.items()}
