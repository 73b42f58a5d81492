"""Searching an index whose shards are open on the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import DiffRetrieverError
from ..searching.folder import IndexFolder, divided, read_index
from ..searching.index import SearchIndex, open_index
from ..searching.opening import OpensSearchers
from ..searching.options import BM25
from ..searching.searchers import Scores, Searcher
from ..searching.shards import CandidateSearcher, Requests, best_of_lists, merged, search_in_two_stages
from .options import ClusterOptions
from .ray import Need, connected, need_of, nodes, remote, started
from .worker import Driver, node

if TYPE_CHECKING:
    import numpy as np

    from ..indexes.multivector.candidates import Proposals
    from ..indexes.options import MultiOptions
    from ..model.representations import QueryRepresentation

_RESTARTS = 3  # of a worker that dies: it opens its shards again and answers the same queries
_MOST_PORTIONS = 1 << 10  # of a store, which has no shards


@contextmanager
def open_on_ray(
    index: str | Path | IndexFolder, cluster: ClusterOptions, encoder: str | None = None, **options: Any
) -> Iterator[SearchIndex]:
    """Open an index in shards on a cluster; this process encodes the queries, merges the lists and fuses them.

    A store, which has no shards, is divided among the workers.

    Parameters
    ----------
    options : of :func:`open_index`.

    Raises
    ------
    InputError
        As :func:`open_index`.
    DiffRetrieverError
        If the cluster cannot be reached, or a worker dies again and again.
    """
    folder = index if isinstance(index, IndexFolder) else read_index(index)
    with connected(cluster.address):
        need = need_of(cluster, len(folder.shards) or _MOST_PORTIONS)
        folder = divided(folder, max(1, need.workers(nodes())))
        with open_index(folder, encoder, **options) as search_index:
            opener = search_index.opener = RayOpener(search_index.opener, folder, need)
            try:
                yield search_index
            finally:
                opener.close()


class SearchWorker:
    """A process on a node that searches some shards."""

    def __init__(self, opener: OpensSearchers, index: IndexFolder, threads: int, driver: Driver):
        self._opener, self._index, self._threads, self._driver = opener, index, threads, driver
        self._searchers: dict[str, Searcher] = {}

    def node(self) -> str:
        """Prepare for work, and return the name of the node and process."""
        self._driver.follow()
        return node()

    def facts(self, signal: str) -> tuple[int, bool, MultiOptions | None, int]:
        """Return the searcher's ``documents``, ``exact`` and ``candidates``, and the number of its shards."""
        searcher = self._searcher(signal)
        return (
            searcher.documents,
            searcher.exact,
            getattr(searcher, "candidates", None),
            max(1, len(self._index.shards)),
        )

    def search(
        self, signal: str, queries: Sequence[QueryRepresentation], numbers: Sequence[int], depth: int
    ) -> list[Scores]:
        """The best ``depth`` documents of the worker's shards for the queries ``numbers``."""
        return self._searcher(signal).search([queries[number] for number in numbers], depth, self._threads)

    def propose(self, signal: str, queries: Sequence[QueryRepresentation], depth: int) -> list[list[Proposals]]:
        """The candidates of each query in each of the worker's shards."""
        return self._of_candidates(signal).propose(queries, depth, self._threads)

    def search_among(
        self, signal: str, queries: Sequence[QueryRepresentation], rows: Sequence[Sequence[np.ndarray]], depth: int
    ) -> list[Scores]:
        """The best ``depth`` documents among the candidates ``rows`` [shards][queries]."""
        return self._of_candidates(signal).search_among(queries, rows, depth, self._threads)

    def _of_candidates(self, signal: str) -> CandidateSearcher:
        return cast(Any, self._searcher(signal))

    def vectors(self, signal: str, docid: str) -> np.ndarray | None:
        """The vectors of a passage in the worker's shards."""
        return self._searcher(signal).vectors(docid)

    def _searcher(self, signal: str) -> Searcher:
        if signal not in self._searchers:  # also after a restart
            self._searchers[signal] = self._opener.open(self._index, signal)
        return self._searchers[signal]


class RayOpener:
    """Opens searchers on workers, each of which holds some shards of an index.

    Parameters
    ----------
    opener : how each worker opens its shards.
    need : what a worker takes of a node.
    """

    def __init__(self, opener: OpensSearchers, index: IndexFolder, need: Need):
        self._opener, self._index, self._need = opener, index, need

    def open(self, index: IndexFolder, signal: str) -> Searcher:
        """Open the searcher of ``signal`` on all workers; that of an index of texts in this process."""
        index.mode(signal)
        if signal == BM25:  # an index of texts is not in shards
            return self._opener.open(index, signal)
        return _RaySearcher(signal, self._workers)

    @cached_property
    def _workers(self) -> list[Any]:
        index, need = self._index, self._need
        count = max(1, min(len(index.shards), need.workers(nodes())))
        retries = {"max_restarts": _RESTARTS, "max_task_retries": _RESTARTS}
        actors = remote(SearchWorker, need, scheduling_strategy="SPREAD", **retries)
        groups = [replace(index, shards=index.shards[first::count]) for first in range(count)]
        workers = [actors.remote(self._opener, group, need.cpus, Driver()) for group in groups]
        started([worker.node.remote() for worker in workers])
        return workers

    def close(self) -> None:
        """End the workers."""
        import ray

        for worker in vars(self).pop("_workers", []):
            ray.kill(worker)


class _RaySearcher:
    """One signal of all workers."""

    def __init__(self, signal: str, workers: Sequence[Any]):
        self._signal, self._workers = signal, workers
        documents, exact, candidates, shards = zip(*self._ask("facts"), strict=True)
        self.documents, self.exact, self.candidates = sum(documents), all(exact), candidates[0]
        self._bounds = [0, *accumulate(shards)]  # of each worker's shards among all

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """The best ``depth`` documents of all workers, which use threads of their own."""
        if self.candidates is not None:
            return search_in_two_stages(self, queries, depth, threads)
        stored = _stored(queries)

        def ask(requests: Requests, length: int) -> list[list[Scores]]:
            return _answers(
                [
                    self._workers[i].search.remote(self._signal, stored, numbers, length)
                    for i, numbers in requests.items()
                ]
            )

        return best_of_lists(ask, len(self._workers), len(queries), depth)

    def propose(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[list[Proposals]]:
        """The candidates of each query in each shard: [shards][queries]."""
        return [shard for worker in self._ask("propose", _stored(queries), depth) for shard in worker]

    def search_among(
        self, queries: Sequence[QueryRepresentation], rows: Sequence[Sequence[np.ndarray]], depth: int, threads: int
    ) -> list[Scores]:
        """The best ``depth`` documents among the candidates ``rows`` [shards][queries]."""
        stored, slices = _stored(queries), pairwise(self._bounds)
        references = [
            worker.search_among.remote(self._signal, stored, rows[low:high], depth)
            for worker, (low, high) in zip(self._workers, slices, strict=True)
        ]
        return merged(_answers(references), depth)

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """What all workers answer."""
        return _answers([getattr(worker, method).remote(self._signal, *arguments) for worker in self._workers])

    def vectors(self, docid: str) -> np.ndarray | None:
        """The vectors of a passage in the shard that holds it."""
        return next((one for one in self._ask("vectors", docid) if one is not None), None)

    def close(self) -> None:
        """Nothing to close: the workers end with the opener."""


def _stored(queries: Sequence[QueryRepresentation]) -> Any:
    """A reference to ``queries``, which Ray copies once to each node."""
    import ray

    return ray.put(list(queries))


def _answers(references: Sequence[Any]) -> list[Any]:
    """Return what the workers answer, or raise the error of one of them."""
    import ray

    try:
        return ray.get(list(references))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DiffRetrieverError):
            raise error.cause from error
        raise DiffRetrieverError(f"a worker cannot search: {type(error.cause).__name__}: {error.cause}") from error
    except ray.exceptions.RayError as error:  # not only RayActorError: Ray ends workers where memory is scarce
        raise DiffRetrieverError(
            f"a worker died {_RESTARTS + 1} times while it searched (out of memory?); give workers fewer shards, by "
            f"more nodes or fewer --cpus-per-worker. Ray says: {str(error).splitlines()[0]}"
        ) from error
