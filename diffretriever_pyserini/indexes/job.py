"""Builds one index folder, part by part: a FAISS folder, a Lucene index, compressed vectors, or several."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
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
from ..store.store import Store
from .faiss import DensePlan, DenseWriter, threads_for
from .lucene import LuceneWriter, TextWriter, encoder_terms
from .multivector.build import MultiJob
from .options import DENSE, LEXICAL, MULTI, PARTS, TEXT, IndexOptions
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
        _ = self.existing
        if self.options.shards == 1:
            self._check_machine()
        if self.options.lexical:
            _ = self.term_names
        _ = self.texts
        return self

    def run(self) -> dict[str, Any]:
        """Write the folder completely or not at all, after :meth:`check`. Returns the contents of ``index.json``."""
        store, options = self.store, self.options
        target = real_target(self.output)
        work = target.with_name(f"{target.name}.multi.unfinished")  # beside the real folder, not beside a link to it
        with whole_folder(self.output, INDEX) as folder:
            facts = facts_of(store) | self._fill(folder)
            if options.multi is not None:
                multi = MultiJob(store, options.multi, work, options.verify, self.bars, self.trained)
                facts[MULTI] = multi.build(folder / MULTI).facts()
            for signal, recorded in self.existing.items():
                shutil.copytree(self.output / signal, folder / signal, copy_function=link)
                facts[signal] = recorded
            write_json(folder / INDEX, facts)
        shutil.rmtree(work, ignore_errors=True)  # only after the index is complete: a kill may come before
        return facts

    @cached_property
    def existing(self) -> dict[str, Any]:
        """The facts of existing indexes, which stay; DiffRetrieverError if they do not belong to this one."""
        restore_folder(self.output, INDEX)
        return existing_signals(self.output, self.options, self.store)

    @cached_property
    def plan(self) -> DensePlan | None:
        """The sizes of the dense index, if there will be one."""
        collection = None if self.trained is None else self.trained.passages
        return dense_plan(self.store, self.options, collection)

    @cached_property
    def term_names(self) -> TermNames:
        """Lucene's names of the terms; InputError if the encoder did not make the store."""
        return self.names or encoder_terms(self.store.spec, self.options.encoder)

    @cached_property
    def texts(self) -> StoreTexts | None:
        """The texts of the passages, if a text index is built; InputError if they are not those of the store."""
        if not self.options.text or TEXT in self.existing:
            return None
        return StoreTexts(self.store, self.options.corpus)

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
            if options.lexical:
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


def existing_signals(output: Path, options: IndexOptions, store: Store) -> dict[str, Any]:
    """Return the facts of existing indexes that stay: those that are not built again, and the texts of this store.

    Raises
    ------
    DiffRetrieverError
        If they are of another store, or of another number of shards.
    """
    if not (output / INDEX).is_file():
        return {}
    recorded = read_json(output / INDEX)
    same_texts = recorded.get("store") == store.digest and (output / TEXT).is_dir()
    existing = {
        part: recorded[part]
        for part in PARTS
        if recorded.get(part) and (part not in options.signals or (part == TEXT and same_texts))
    }
    other = None
    if recorded.get("store") != store.digest:
        other = "of another store"
    elif (known := len(recorded.get("shards") or [output])) != options.shards:
        other = f"in {known} shard{'s' if known > 1 else ''}"
    if existing and other:
        flags = " ".join(f"--{signal}" for signal in existing)
        raise DiffRetrieverError(
            f"{output} holds a {min(existing)} index {other}, which this command would not build again: add "
            f"{flags}, name another folder, or remove this one."
        )
    return existing


def dense_plan(store: Store, options: IndexOptions, collection: int | None = None) -> DensePlan | None:
    """Return the sizes of the dense index of ``store``, if ``options`` want one."""
    if options.dense is None:
        return None
    return DensePlan(options.dense, len(store), store.spec.dimension, collection)


@contextlib.contextmanager
def _abandoned_on_error(writer: LuceneWriter | TextWriter) -> Iterator[None]:
    try:
        yield
    except BaseException:
        writer.abandon()
        raise
