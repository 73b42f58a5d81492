"""Searching shards: each is asked for its best documents, and the lists are merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING

from ..errors import InputError
from .searchers import Scores, Searcher

if TYPE_CHECKING:
    import numpy as np

    from ..model.representations import QueryRepresentation


class ShardedSearcher:
    """One signal of all shards of an index."""

    def __init__(self, searchers: Sequence[Searcher]):
        self._searchers = searchers
        self.documents = sum(searcher.documents for searcher in searchers)
        self.exact = all(searcher.exact for searcher in searchers)

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """The best ``depth`` documents of all shards, which are searched one after the other."""
        return merged((searcher.search(queries, depth, threads) for searcher in self._searchers), depth)

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
