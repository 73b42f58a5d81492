"""Builds the indexes of a store: FAISS, Lucene, compressed vectors, texts, or several of them; whole or in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files.outputs import refuse_inputs
from ..model.lexical import TermNames
from ..store.store import Store
from .docids import check_unique
from .job import IndexJob
from .options import IndexOptions
from .progress import terminal_bars
from .shards import build_shards


def build_index(
    store: Store | str | Path, output: str | Path, options: IndexOptions | None = None, names: TermNames | None = None
) -> dict[str, Any]:
    """Write the folder ``output`` with the indexes of ``store``, completely or not at all. Returns ``index.json``.

    Existing indexes of the same store stay, and those with the same options are not built again. The multi-vector index
    takes longest: after a kill it continues from ``OUTPUT.multi.unfinished``, while the others start again.

    Parameters
    ----------
    store, output : folders; ``output`` may hold an older index, which is replaced.
    options : which indexes, and how; None is a flat FAISS index, and a Lucene index if the encoder has terms.
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
    return run_job(index_job(store, output, options, names))


def run_job(job: IndexJob) -> dict[str, Any]:
    """Build what ``job`` does not keep, in this process. Returns the contents of ``index.json``."""
    return job.run() if job.options.shards == 1 else build_shards(job)


def index_job(
    store: Store | str | Path, output: str | Path, options: IndexOptions | None = None, names: TermNames | None = None
) -> IndexJob:
    """Return the job of :func:`build_index`, after all checks that need no work."""
    store = store if isinstance(store, Store) else Store(store)
    options = options or IndexOptions(lexical=not store.spec.provenance.terms_refused)
    refuse_inputs({"--output": output}, {"--store": store.folder, "--corpus": options.corpus or None})
    job = IndexJob(store, Path(output).expanduser(), options, terminal_bars(options.quiet), names).check()
    if job.built:
        check_unique(store)
    return job
