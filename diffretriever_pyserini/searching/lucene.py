"""The ranked lists of Pyserini's Lucene searchers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BUILD_AGAIN, DiffRetrieverError, InputError
from ..runtime import java

Scores = dict[str, float]
"""docid → score."""


def lucene_lists(
    searcher: Any, folder: Path, queries: Sequence[Mapping[str, int] | str], depth: int, threads: int
) -> list[Sequence[Any]]:
    """The lists of Pyserini's ``searcher`` of ``folder``, which may end within a tie.

    Raises
    ------
    InputError
        When Lucene cannot read the index.
    DiffRetrieverError
        When it gives no answer to a query.
    """
    from jnius import JavaException

    numbers = [str(number) for number in range(len(queries))]
    try:
        with java.calls:
            answers = searcher.batch_search(queries, numbers, depth, threads)
    except JavaException as error:
        raise InputError(
            f"{folder}: Lucene cannot search it ({java.said(error)}); if it is damaged, {BUILD_AGAIN}."
        ) from error
    lost = [one for one, number in zip(queries, numbers, strict=True) if number not in answers]
    if lost:
        shown = lost[0] if isinstance(lost[0], str) else f"with the terms {', '.join(sorted(lost[0]))}"
        raise DiffRetrieverError(
            f"{folder}: Lucene gave no answer to {len(lost)} of {len(queries)} queries, the first of them "
            f"{shown:.200}; its own message is above."
        )
    return [answers[number] for number in numbers]


def through_the_tie_at(depth: int, hits: Sequence[Any], as_score: Callable[[float], float]) -> Scores:
    """The documents of Lucene's ``hits`` down to the tie at rank ``depth``: reading a hit from Java takes time."""
    scores: Scores = {}
    last = -math.inf
    with java.calls:
        for rank, hit in enumerate(hits, start=1):
            score = as_score(hit.score)
            if score < last:
                break
            scores[hit.docid] = score
            if rank == depth:
                last = score
    return scores
