"""Building the shards of an index on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..indexes.job import IndexJob
from ..indexes.shards import ShardBuild, build_shards
from ..store.store import Store
from .options import ClusterOptions
from .pool import Pool, View
from .ray import Need, connected, need_of
from .worker import Driver, logged, node, when_free


def build_on_ray(job: IndexJob, cluster: ClusterOptions, view: View) -> dict[str, Any]:
    """Build the shards of ``job`` on a cluster; see :func:`~..indexes.build.index_job`.

    Returns
    -------
    The contents of ``index.json``.

    Raises
    ------
    DiffRetrieverError
        As :func:`~..indexes.build.build_index`, and if the cluster cannot be reached.
    """
    if not job.built:
        return job.recorded
    job.store.portions(job.options.shards)  # too many shards are refused before a cluster starts

    def build_all(build: ShardBuild, portions: Sequence[Store]) -> None:
        need = need_of(cluster, len(build.missing))
        pool = Pool(IndexWorker, (_for(need, build), Driver()), need, view, "indexing", build.log)
        pool.run(build.missing)

    with connected(cluster.address):
        return build_shards(job, build_all)


def _for(need: Need, build: ShardBuild) -> ShardBuild:
    """Return ``build`` with the threads of a worker; None stays for HNSW, whose graph depends on timing."""
    if build.options.threads is not None or build.options.dense == "hnsw":
        return build
    return replace(build, options=replace(build.options, threads=need.cpus))


class IndexWorker:
    """A process on a node that builds shards."""

    def __init__(self, build: ShardBuild, driver: Driver):
        self._build, self._driver = build, driver
        self._progress: _Steps | None = None

    def node(self) -> str:
        """Prepare for work, and return the name of the node and process."""
        from ..indexes.lucene import HEAP_MEGABYTES
        from ..runtime.java import bound_heap

        self._driver.follow()
        bound_heap(HEAP_MEGABYTES)
        return node()

    @cached_property
    def _portions(self) -> list[Store]:
        return Store(self._build.store).portions(self._build.options.shards)

    def run(self, shard: int) -> int:
        """Build ``shard``; returns the number of passages of all steps."""
        portion = self._portions[shard]
        self._progress = steps = _Steps(shard)

        @contextmanager
        def bars(name: str, passages: int) -> Iterator[_Steps]:
            yield steps

        with logged(self._build.log(shard)):
            when_free(lambda: self._build.build(shard, portion, bars))
        return steps.done

    def progress(self) -> dict[str, Any] | None:
        """Return how far the current shard is."""
        steps = self._progress
        return None if steps is None else vars(steps) | {"process": os.getpid(), "messages": []}


@dataclass
class _Steps:
    """The number of passages that have passed the steps of building a shard, each counted once per step."""

    shard: int
    done: int = 0

    def update(self, n: int) -> None:
        """Count ``n`` more passages."""
        self.done += n
