"""Builds one index folder, part by part: a FAISS folder, a Lucene index, compressed vectors, or several."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import DiffRetrieverError, InputError
from ..files.atomic import link, read_json, write_json
from ..files.folders import restore_folder, whole_folder
from ..files.outputs import real_target
from ..model.lexical import TermNames
from ..runtime.memory import available_bytes
from ..runtime.threads import faiss_threads
from ..store.index_record import read_index_record
from ..store.store import Store
from .faiss import DensePlan, DenseWriter, threads_for
from .lucene import LuceneWriter, TextWriter, encoder_terms
from .multivector.build import MultiJob
from .options import DENSE, LEXICAL, MULTI, PARTS, TEXT, IndexOptions, MultiBuild
from .progress import Bars
from .texts import StoreTexts
from .trained import Trained, dense_index

FORMAT = 2
INDEX = "index.json"
_MEMORY_SHARE = 0.8  # of the free memory


@dataclass(frozen=True)
class IndexJob:
    """The building of the indexes of ``store`` in the folder ``output``: what all steps need.

    Attributes
    ----------
    names : Lucene's names of the terms; None are those of the store's encoder.
    bars : show the progress.
    trained : what an index shares with the other shards of its collection; None trains on ``store``.
    """

    store: Store
    output: Path
    options: IndexOptions
    bars: Bars
    names: TermNames | None = None
    trained: Trained | None = None

    def check(self) -> IndexJob:
        """Raise an error for all that can be checked at once; returns the job."""
        if len(self.store) == 0:
            raise InputError(f"{self.store.folder}: the store has no passages, so there is nothing to index.")
        if LEXICAL in self.options.signals and (why := self.store.spec.provenance.terms_refused):
            raise InputError(f"{self.store.folder} has no terms for a lexical index: {why}.")
        _ = self.existing
        if self.options.shards == 1:
            self._check_machine()
        if LEXICAL in self.built:
            _ = self.term_names
        _ = self.texts
        return self

    def run(self) -> dict[str, Any]:
        """Write the folder completely or not at all, after :meth:`check`. Returns the contents of ``index.json``."""
        store, options = self.store, self.options
        if not self.built:
            return self.recorded
        target = real_target(self.output)
        work = target.with_name(f"{target.name}.multi.unfinished")  # beside the real folder, not beside a link to it
        with whole_folder(self.output, INDEX) as folder:
            facts = facts_of(store) | self._fill(folder)
            if options.multi is not None and MULTI in self.built:
                multi = MultiJob(store, options.multi, work, options.verify, self.bars, self.trained)
                facts[MULTI] = multi.build(folder / MULTI).facts() | multi_facts(store, options.multi)
            files = {signal: _sizes(folder / signal) for signal in self.built}
            for signal, recorded in self.existing.items():
                shutil.copytree(self.output / signal, folder / signal, copy_function=link)
                facts[signal], files[signal] = recorded, self.recorded.get("files", {}).get(signal)
            facts["files"] = files
            write_json(folder / INDEX, facts)
        shutil.rmtree(work, ignore_errors=True)  # only after the index is complete: a kill may come before
        return facts

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """The contents of the existing ``index.json``; empty if there is none."""
        restore_folder(self.output, INDEX)
        path = self.output / INDEX
        return read_json(path, f"remove {self.output} and build its indexes again") if path.is_file() else {}

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The signals whose indexes are wanted and exist already, of the same store and with the same options."""
        store, options, recorded = self.store, self.options, self.recorded
        wanted = json.loads(json.dumps({name: value for name, value in facts_of(store).items() if value is not None}))
        if options.rebuild or self._shards_recorded != options.shards or not wanted.items() <= recorded.items():
            return ()
        plan, multi = self._dense_plan, options.multi
        facts: dict[str, dict[str, Any]] = {
            DENSE: {} if plan is None else plan.facts(),
            LEXICAL: {},
            MULTI: {} if multi is None else multi_facts(store, multi),
            TEXT: {},
        }
        same = (
            name for name in options.signals if recorded.get(name) and facts[name].items() <= recorded[name].items()
        )
        return tuple(name for name in same if self._is_whole(name))

    @property
    def _shards_recorded(self) -> int:
        return len(self.recorded.get("shards") or [self.output])

    def _is_whole(self, signal: str) -> bool:
        """Whether the files of the existing index of ``signal`` have their sizes, and its records can be read."""
        folders = [self.output / shard["folder"] for shard in self.recorded.get("shards") or [{"folder": "."}]]
        try:
            for folder in folders:
                sizes = read_json(folder / INDEX).get("files", {}).get(signal)
                read_index_record(folder / signal)
                if not sizes or not sizes.items() <= _sizes(folder / signal).items():
                    return False
        except InputError:  # damaged, so it is built again
            return False
        return True

    @property
    def built(self) -> tuple[str, ...]:
        """The signals whose indexes are built."""
        return tuple(signal for signal in self.options.signals if signal not in self.kept)

    @property
    def remaining_options(self) -> IndexOptions:
        """The options with which exactly :attr:`built` are built: every shard follows what was decided for all."""
        options, built = self.options, self.built
        dense, multi = (options.dense if DENSE in built else None, options.multi if MULTI in built else None)
        return replace(options, dense=dense, lexical=LEXICAL in built, multi=multi, rebuild=True)

    @cached_property
    def existing(self) -> dict[str, Any]:
        """The facts of existing indexes that stay.

        Raises
        ------
        DiffRetrieverError
            If they are of another store, or of another number of shards.
        """
        recorded, built = self.recorded, self.built
        existing = {name: recorded[name] for name in PARTS if recorded.get(name) and name not in built}
        other = None
        if recorded.get("store") != self.store.digest:
            other = "of another store"
        elif (known := self._shards_recorded) != self.options.shards:
            other = f"in {known} shard{'s' if known > 1 else ''}"
        if existing and other:
            flags = " ".join(f"--{signal}" for signal in existing)
            raise DiffRetrieverError(
                f"{self.output} holds a {min(existing)} index {other}, which this command would not build again: add "
                f"{flags}, name another folder, or remove this one."
            )
        return existing

    @property
    def plan(self) -> DensePlan | None:
        """The sizes of the dense index, if one will be built."""
        return self._dense_plan if DENSE in self.built else None

    @cached_property
    def _dense_plan(self) -> DensePlan | None:
        store, kind = self.store, self.options.dense
        collection = None if self.trained is None else self.trained.passages
        return None if kind is None else DensePlan(kind, len(store), store.spec.dimension, collection)

    @cached_property
    def term_names(self) -> TermNames:
        """Lucene's names of the terms; InputError if the encoder did not make the store."""
        return self.names or encoder_terms(self.store.spec, self.options.encoder)

    @cached_property
    def texts(self) -> StoreTexts | None:
        """The texts of the passages, if a text index is built; InputError if they are not those of the store."""
        return StoreTexts(self.store, self.options.corpus) if TEXT in self.built else None

    def _check_machine(self) -> None:
        """Raise DiffRetrieverError if this machine lacks the memory or the GPU that the dense index needs."""
        if self.plan is None:
            return
        free, limit = available_bytes(), self.options.max_memory
        if limit is not None:
            self.plan.check_memory(int(limit * 1e9), "--max-memory")
        elif free is not None:
            self.plan.check_memory(
                int(_MEMORY_SHARE * free), f"{_MEMORY_SHARE:.0%} of the free memory; --max-memory sets another"
            )
        if self.options.gpu:
            import faiss

            if not faiss.get_num_gpus():
                raise DiffRetrieverError("--gpu: FAISS sees no GPU here; omit this option.")

    def _fill(self, folder: Path) -> dict[str, Any]:
        """Stream the parts into all writers; returns the facts of each index."""
        store, options, plan = self.store, self.options, self.plan
        writers: dict[str, DenseWriter | LuceneWriter | TextWriter] = {}
        with contextlib.ExitStack() as stack:
            if plan is not None:
                stack.enter_context(faiss_threads(threads_for(plan.kind, options.threads)))
                index = dense_index(plan, store, options.gpu, self.trained)
                writers[DENSE] = DenseWriter(folder / DENSE, plan, store.spec, index)
            if LEXICAL in self.built:
                lexical = writers[LEXICAL] = LuceneWriter(folder / LEXICAL, store.spec, self.term_names)
                stack.enter_context(_abandoned_on_error(lexical))
            if self.texts is not None:
                text = writers[TEXT] = TextWriter(folder / TEXT, self.texts)
                stack.enter_context(_abandoned_on_error(text))
            if writers:
                bar = stack.enter_context(self.bars("Indexing", len(store)))
                for part in store.parts:
                    if options.verify:
                        part.verify()
                    docids = part.docids
                    for writer in writers.values():
                        writer.add(part, docids)
                    bar.update(len(part))
            return {signal: writer.close() for signal, writer in writers.items()}


def facts_of(store: Store) -> dict[str, Any]:
    """Return what ``index.json`` says of an index's ``store``; no signal yet."""
    spec = store.spec
    return {
        "format": FORMAT,
        "provenance": spec.provenance.record(),
        "dimension": spec.dimension,
        "passages": len(store),
        "corpus": spec.corpus,
        "max_length": spec.max_length,
        "store": store.digest,
        **dict.fromkeys(PARTS),
    }


def multi_facts(store: Store, options: MultiBuild) -> dict[str, Any]:
    """Return the options of a multi-vector index, as ``index.json`` has them."""
    return {"budget": options.budget(store), "refine": options.refine}


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in ``folder``."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*")) if path.is_file()}


@contextlib.contextmanager
def _abandoned_on_error(writer: LuceneWriter | TextWriter) -> Iterator[None]:
    try:
        yield
    except BaseException:
        writer.abandon()
        raise
