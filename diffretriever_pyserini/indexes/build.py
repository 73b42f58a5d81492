"""Builds the indexes of a store, part by part: a FAISS folder, a Lucene index, compressed vectors, or several."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DiffRetrieverError, InputError
from ..files.atomic import link, read_json, write_json
from ..files.folders import restore_folder, whole_folder
from ..files.outputs import real_target, refuse_inputs
from ..model.lexical import TermNames
from ..runtime.memory import available_bytes
from ..runtime.threads import faiss_threads
from ..store.store import Store
from .docids import check_unique
from .faiss import DensePlan, DenseWriter, threads_for
from .lucene import LuceneWriter, encoder_terms
from .multivector.build import build_multi
from .options import DENSE, LEXICAL, MULTI, IndexOptions

FORMAT = 2
INDEX = "index.json"
_MEMORY_SHARE = 0.8  # of the free memory


def build_index(
    store: Store | str | Path, output: str | Path, options: IndexOptions | None = None, names: TermNames | None = None
) -> dict[str, Any]:
    """Write the folder ``output`` with the indexes of ``store``, completely or not at all. Returns ``index.json``.

    Existing indexes of the same store stay unless they are built again. The multi-vector index takes longest: after a
    kill it continues from ``OUTPUT.multi.unfinished``, while the others start again.

    Parameters
    ----------
    store, output : folders; ``output`` may hold an older index, which is replaced.
    options : which indexes, and how; None is a flat FAISS index and a Lucene index.
    names : Lucene's names of the terms, for a model with changed settings, which has no encoder name.

    Raises
    ------
    InputError
        For a store that is not finished, empty, damaged (the part is named) or holds an id twice, and for an encoder
        that did not make it.
    DiffRetrieverError
        For an index that needs more memory than allowed, an output folder with other contents or an index that would
        be lost, a second writer, and a full disk.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, build_index, encode_corpus
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> facts = build_index("store", "index")
    >>> sorted(path.name for path in Path("index").iterdir())
    ['dense', 'index.json', 'lexical']
    """
    options = options or IndexOptions()
    refuse_inputs({"--output": output}, {"--store": store.folder if isinstance(store, Store) else store})
    store = store if isinstance(store, Store) else Store(store)
    target, output = real_target(output), Path(output).expanduser()
    if len(store) == 0:
        raise InputError(f"{store.folder}: the store has no passages, so there is nothing to index.")
    work = target.with_name(f"{target.name}.multi.unfinished")  # beside the real folder, not beside a link to it
    restore_folder(output, INDEX)
    existing = _existing_signals(output, options, store)
    plan = _plan(store, options)
    if options.lexical:
        names = names or encoder_terms(store.spec, options.encoder)
    check_unique(store)
    with whole_folder(output, INDEX) as folder:
        facts = _fill(folder, store, options, plan, names)
        if options.multi is not None:
            manifest = build_multi(store, folder / MULTI, options.multi, work, options.verify, options.quiet)
            facts[MULTI] = {"bytes_per_passage": manifest.stride + manifest.candidate_bytes, "recall": manifest.recall}
        for signal, recorded in existing.items():
            shutil.copytree(output / signal, folder / signal, copy_function=link)
            facts[signal] = recorded
        write_json(folder / INDEX, facts)
    shutil.rmtree(work, ignore_errors=True)  # only after the index is complete: a kill may come before
    return facts


def _existing_signals(output: Path, options: IndexOptions, store: Store) -> dict[str, Any]:
    """Return the facts of existing indexes that stay; DiffRetrieverError if they are of another store."""
    if not (output / INDEX).is_file():
        return {}
    recorded = read_json(output / INDEX)
    existing = {
        signal: recorded[signal]
        for signal in (DENSE, LEXICAL, MULTI)
        if recorded.get(signal) and signal not in options.signals
    }
    if existing and recorded.get("store") != store.digest:
        flags = " ".join(f"--{signal}" for signal in existing)
        raise DiffRetrieverError(
            f"{output} holds a {min(existing)} index of another store, which this command would not build again: add "
            f"{flags}, name another folder, or remove this one."
        )
    return existing


def _plan(store: Store, options: IndexOptions) -> DensePlan | None:
    if options.dense is None:
        return None
    plan = DensePlan(options.dense, len(store), store.spec.dimension)
    free = available_bytes()
    if options.max_memory is not None:
        plan.check_memory(int(options.max_memory * 1e9), "--max-memory")
    elif free is not None:
        plan.check_memory(
            int(_MEMORY_SHARE * free), f"{_MEMORY_SHARE:.0%} of the free memory; --max-memory sets another"
        )
    if options.gpu:
        import faiss

        if not faiss.get_num_gpus():
            raise DiffRetrieverError("--gpu: FAISS sees no GPU here; omit this option.")
    return plan


def _fill(
    folder: Path, store: Store, options: IndexOptions, plan: DensePlan | None, names: TermNames | None
) -> dict[str, Any]:
    """Stream the parts into both writers; returns the contents of ``index.json``."""
    from tqdm import tqdm

    spec = store.spec
    with contextlib.ExitStack() as stack:
        dense = lexical = None
        parts = store.parts if plan is not None or options.lexical else []
        if plan is not None:
            stack.enter_context(faiss_threads(threads_for(plan.kind, options.threads)))
            dense = DenseWriter(folder / DENSE, plan, store, options.gpu)
        if options.lexical:
            assert names is not None
            lexical = LuceneWriter(folder / LEXICAL, spec, names)
            stack.enter_context(_abandoned_on_error(lexical))
        bar = stack.enter_context(
            tqdm(
                total=len(store),
                unit=" passages",
                desc="Indexing",
                disable=True if options.quiet or not parts else None,
            )
        )
        for part in parts:
            if options.verify:
                part.verify()
            docids = part.docids
            for writer in (dense, lexical):
                if writer is not None:
                    writer.add(part, docids)
            bar.update(len(part))
        facts: dict[str, Any] = {
            "format": FORMAT,
            "provenance": spec.provenance.record(),
            "dimension": spec.dimension,
            "passages": len(store),
            "corpus": spec.corpus,
            "max_length": spec.max_length,
            "store": store.digest,
            MULTI: None,
        }
        facts[DENSE] = dense.close() if dense is not None else None
        facts[LEXICAL] = lexical.close() if lexical is not None else None
    return facts


@contextlib.contextmanager
def _abandoned_on_error(writer: LuceneWriter) -> Iterator[None]:
    try:
        yield
    except BaseException:
        writer.abandon()
        raise
