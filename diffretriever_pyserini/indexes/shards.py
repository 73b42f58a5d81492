"""An index in shards: each is an index of a run of the store's parts, and ``index.json`` of the whole lists them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DiffRetrieverError
from ..files.atomic import link, read_json, write_json
from ..files.folders import whole_folder
from ..runtime.threads import faiss_threads
from ..store.store import Store
from .faiss import DensePlan, threads_for, trained_index
from .job import INDEX, IndexJob, facts_of
from .multivector.build import check_store, train_multi
from .multivector.candidates import write_index
from .options import DENSE, LEXICAL, MULTI, IndexOptions
from .progress import Bars, terminal_bars
from .trained import DENSE_QUANTISER, Trained

_BUILDING = "building"  # while the shards are built: the quantisers and a file per finished shard


def shard_folder(shard: int) -> str:
    """Return the folder of ``shard``, relative to that of the whole index."""
    return f"shards/{shard:05d}"


@dataclass(frozen=True)
class ShardBuild:
    """The building of the shards of ``store`` in ``work``; it can be sent to another process or machine.

    ``state`` is a folder for this store and these options only, so that a process of an earlier attempt with others,
    which may still run on some node, marks no shard as finished here.
    """

    store: Path
    work: Path
    state: Path
    options: IndexOptions
    passages: int

    def build(self, shard: int, portion: Store, bars: Bars) -> None:
        """Build ``shard`` from its ``portion`` of the store, unless that is done."""
        if self._finished(shard).is_file():
            return
        trained = Trained(self.state, self.passages)
        options = replace(self.options, shards=1)
        IndexJob(portion, self.work / shard_folder(shard), options, bars, trained=trained).check().run()
        self._finished(shard).touch()

    def _finished(self, shard: int) -> Path:
        return self.state / f"{shard:05d}.finished"

    def log(self, shard: int) -> Path:
        """Return the path of a log of building ``shard``."""
        return self.state / f"{shard:05d}.log"

    @property
    def missing(self) -> list[int]:
        """The shards that are not finished yet."""
        return [shard for shard in range(self.options.shards) if not self._finished(shard).is_file()]


BuildAll = Callable[[ShardBuild, Sequence[Store]], None]
"""Builds all missing shards, given the portions of the store."""


def build_in_turn(build: ShardBuild, portions: Sequence[Store]) -> None:
    """Build the missing shards one after the other in this process."""
    for shard in build.missing:
        bars = terminal_bars(build.options.quiet, f"Shard {shard + 1} of {len(portions)}, ")
        build.build(shard, portions[shard], bars)


def build_shards(job: IndexJob, build_all: BuildAll = build_in_turn) -> dict[str, Any]:
    """Build the indexes of ``job`` in shards, completely or not at all. Returns the contents of ``index.json``.

    After a kill, the next call with the same store and options continues with the shards that are missing.
    """
    store, options = job.store, job.options
    if not job.built:
        return job.recorded
    portions = store.portions(options.shards)
    if options.multi is not None:
        check_store(store)
    with whole_folder(job.output, INDEX, resume=True) as work:
        state = _begin(work, job)
        build = ShardBuild(store.folder, work, state, job.remaining_options, len(store))
        _train(job, state)
        build_all(build, portions)
        records = [read_json(work / shard_folder(shard) / INDEX) for shard in range(options.shards)]
        facts = _facts(store, records)
        write_json(work / INDEX, facts)
    shutil.rmtree(job.output / state.name, ignore_errors=True)  # only now: a kill before may continue from it
    return facts


def _begin(work: Path, job: IndexJob) -> Path:
    """Continue the attempt in ``work`` if it had the same store and options, or start again; returns its state."""
    inputs = json.dumps([job.store.digest, asdict(job.options) | {"quiet": None}, bool(job.existing)], sort_keys=True)
    task = hashlib.sha256(inputs.encode()).hexdigest()
    state = work / f"{_BUILDING}-{task[:16]}"
    if state.is_dir():
        return state
    for path in work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if job.existing:
        shutil.copytree(job.output / "shards", work / "shards", copy_function=link)
    (work / "shards").mkdir(exist_ok=True)
    state.mkdir()  # at last: a kill before starts again
    return state


def _train(job: IndexJob, folder: Path) -> None:
    """Train what the shards share and ``folder`` does not hold yet."""
    store, options, plan = job.store, job.options, job.plan
    if plan is not None and plan.sample and not (folder / DENSE_QUANTISER).is_file():
        with faiss_threads(threads_for(plan.kind, options.threads)):
            write_index(folder / DENSE_QUANTISER, trained_index(plan, store, options.gpu))
    if options.multi is not None and MULTI in job.built:
        train_multi(store, folder, options.multi)


def _facts(store: Store, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ``index.json`` of the whole, given those of the shards.

    Raises
    ------
    DiffRetrieverError
        If they were built with different options, by processes of two attempts at the same time.
    """
    kinds = {
        ((record[DENSE] or {}).get("kind"), bool(record[LEXICAL]), (record[MULTI] or {}).get("bytes_per_passage"))
        for record in records
    }
    if len(kinds) > 1 or sum(record["passages"] for record in records) != len(store):
        raise DiffRetrieverError(
            "another process has built some of the shards with other options; stop it and run the command again."
        )
    facts = facts_of(store)
    if first := records[0][DENSE]:
        facts[DENSE] = DensePlan(first["kind"], len(store), store.spec.dimension).facts()
    if first := records[0][LEXICAL]:
        facts[LEXICAL] = first | {"documents": sum(record[LEXICAL]["documents"] for record in records)}
    if first := records[0][MULTI]:
        facts[MULTI] = first | {"recall": _mean_recall([record[MULTI]["recall"] for record in records])}
    facts["shards"] = [
        {"folder": shard_folder(shard), "passages": record["passages"], "store": record["store"]}
        for shard, record in enumerate(records)
    ]
    return facts


def _mean_recall(recalls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the recall of all shards: sums of counts, and means of shares weighted by the number of queries."""
    queries = sum(recall["queries"] for recall in recalls)
    shares = {
        name: round(sum(recall[name] * recall["queries"] for recall in recalls) / max(1, queries), 4)
        for name in recalls[0]
        if name not in ("queries", "passages")
    }
    return {"queries": queries, "passages": sum(recall["passages"] for recall in recalls)} | shares
