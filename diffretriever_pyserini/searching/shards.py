"""Searching shards: each is asked for its best documents, and the lists are merged.

A compressed multi-vector index first proposes candidates. The best candidates of all shards are those that one index
would propose, so only they are scored, each in its shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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


_SPARE = 32  # documents beyond twice a shard's share


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

        def ask(requests: Requests, length: int) -> list[list[Scores]]:
            return [
                self._searchers[shard].search([queries[number] for number in numbers], length, threads)
                for shard, numbers in requests.items()
            ]

        return best_of_lists(ask, len(self._searchers), len(queries), depth)

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


Requests = dict[int, list[int]]
"""Which queries, by number, each shard is asked."""


def best_of_lists(
    ask: Callable[[Requests, int], Sequence[list[Scores]]], shards: int, queries: int, depth: int
) -> list[Scores]:
    """The best ``depth`` documents of each query in all ``shards``, without reading ``depth`` documents from each.

    Each shard is first asked for about twice its share. A list that ends above the best ``depth`` of all lists may lack
    some of them, so its shard is asked again for a longer one.

    Parameters
    ----------
    ask : takes requests and the length of the lists; returns for each shard one list per query, best first.
    """
    lists: list[dict[int, Scores]] = [{} for _ in range(shards)]
    best: dict[int, Scores] = {}
    length = depth if shards == 1 else min(depth, 2 * -(-depth // shards) + _SPARE)
    requests: Requests = {shard: list(range(queries)) for shard in range(shards)}
    while requests:
        for (shard, numbers), answers in zip(requests.items(), ask(requests, length), strict=True):
            lists[shard].update(zip(numbers, answers, strict=True))
        for number in sorted({number for numbers in requests.values() for number in numbers}):
            best[number] = _merged([one[number] for one in lists], depth)
        requests = {
            shard: numbers
            for shard, asked in requests.items()
            if length < depth and (numbers := [n for n in asked if _may_lack(lists[shard][n], best[n], length, depth)])
        }
        length = min(depth, 4 * length)
    return [best[number] for number in range(queries)]


def _may_lack(shard: Scores, best: Scores, length: int, depth: int) -> bool:
    """Whether a shard's list of at most ``length`` documents ends before it is below the ``best`` of all."""
    if len(shard) < length:
        return False
    if len(best) < depth:
        return True
    (docid, score), (last, least) = next(reversed(shard.items())), next(reversed(best.items()))
    return (score, docid) > (least, last)


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
