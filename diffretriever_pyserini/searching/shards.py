"""Searching shards: each is asked for its best documents, and the lists are merged.

A compressed multi-vector index first proposes candidates. The best candidates of all shards are those that one index
would propose, so only they are scored, each in its shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..errors import InputError
from ..indexes.multivector.candidates import Proposals, best_of_shards
from .searchers import Scores, Searcher

if TYPE_CHECKING:
    import numpy as np

    from ..indexes.options import MultiOptions
    from ..model.representations import QueryRepresentation


class CandidateSearcher(Searcher, Protocol):
    """A searcher of one or several shards that first proposes candidates."""

    candidates: MultiOptions | None
    """How many are proposed; None where every document is scored."""

    def propose(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[list[Proposals]]:
        """The candidates of each query in each shard: [shards][queries]."""

    def search_among(
        self, queries: Sequence[QueryRepresentation], rows: Sequence[Sequence[np.ndarray]], depth: int, threads: int
    ) -> list[Scores]:
        """The best ``depth`` documents among the candidates ``rows`` [shards][queries]."""


def search_in_two_stages(
    searcher: CandidateSearcher, queries: Sequence[QueryRepresentation], depth: int, threads: int
) -> list[Scores]:
    """The best ``depth`` documents of each query among the best candidates of all shards."""
    assert searcher.candidates is not None
    depth = max(1, min(depth, searcher.documents))
    count = searcher.candidates.candidate_count(depth)
    shards = searcher.propose(queries, depth, threads)
    chosen = [best_of_shards([shard[i] for shard in shards], count) for i in range(len(queries))]
    rows = [[one[shard] for one in chosen] for shard in range(len(shards))]
    return searcher.search_among(queries, rows, depth, threads)


class ShardedSearcher:
    """One signal of all shards of an index."""

    def __init__(self, searchers: Sequence[Searcher]):
        self._searchers = searchers
        self.documents = sum(searcher.documents for searcher in searchers)
        self.exact = all(searcher.exact for searcher in searchers)
        self.candidates: MultiOptions | None = getattr(searchers[0], "candidates", None)

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """The best ``depth`` documents of all shards, which are searched one after the other."""
        if self.candidates is not None:
            return search_in_two_stages(self, queries, depth, threads)
        return merged((searcher.search(queries, depth, threads) for searcher in self._searchers), depth)

    def propose(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[list[Proposals]]:
        """The candidates of each query in each shard: [shards][queries]."""
        return [shard for one in self._candidates() for shard in one.propose(queries, depth, threads)]

    def search_among(
        self, queries: Sequence[QueryRepresentation], rows: Sequence[Sequence[np.ndarray]], depth: int, threads: int
    ) -> list[Scores]:
        """The best ``depth`` documents among the candidates ``rows`` [shards][queries]."""
        shards = zip(self._candidates(), rows, strict=True)
        return merged((one.search_among(queries, [chosen], depth, threads) for one, chosen in shards), depth)

    def _candidates(self) -> list[CandidateSearcher]:
        return cast(list[Any], self._searchers)

    def vectors(self, docid: str) -> np.ndarray | None:
        """The vectors of a passage in the shard that holds it."""
        return next((one for searcher in self._searchers if (one := searcher.vectors(docid)) is not None), None)

    def close(self) -> None:
        """Close all shards."""
        for searcher in self._searchers:
            searcher.close()


def merged(shards: Iterable[list[Scores]], depth: int) -> list[Scores]:
    """Merge the lists of all ``shards``, each with one list per query.

    Raises
    ------
    InputError
        If two shards hold the same document.
    """
    return [_merged(lists, depth) for lists in zip(*shards, strict=True)]


def _merged(lists: Sequence[Scores], depth: int) -> Scores:
    if len(lists) == 1:
        return lists[0]
    best = merge(*(one.items() for one in lists), key=lambda hit: (hit[1], hit[0]), reverse=True)
    hits = list(islice(best, depth))
    scores = dict(hits)
    if len(scores) < len(hits):
        docids = [docid for docid, _ in hits]
        repeated = next(docid for docid in docids if docids.count(docid) > 1)
        raise InputError(
            f"two shards hold the passage {repeated!r}: they are of different stores; build the index again."
        )
    return scores
