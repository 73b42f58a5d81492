"""Changing a collection: adding the passages of a store, and deleting passages."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import batched, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..corpora.corpus import Passage
from ..errors import InputError
from ..indexes.progress import NO_BARS, Bar, Bars
from ..indexes.texts import StoreTexts
from ..store.docids import repeats
from ..store.part import Part
from ..store.store import Store
from .engine import DENSE, DOCID, LEXICAL, MULTI, Engine, Point, Sparse, Vector, open_engine
from .options import ExportOptions
from .record import CollectionRecord, Layout, Upload, existing_record, read_record

_REQUEST_BYTES = 16 << 20  # a server takes 32 MB
_NUMBER_BYTES = 22  # of a component in JSON
_MOST_PASSAGES = 256
_RECORDED = 16  # requests after which the record is written
_DELETED = 1000


def export_to_qdrant(
    store: Store | str | Path,
    target: str | Path,
    collection: str,
    options: ExportOptions | None = None,
    bars: Bars = NO_BARS,
) -> dict[str, Any]:
    """Upload the passages of ``store`` into a collection, new or existing; an interrupted upload is continued.

    A passage replaces the one that has its docid.

    Parameters
    ----------
    target : URL of a server, or a folder for the engine in this process.

    Returns
    -------
    ``passages`` of the store, ``continued`` (how many of them were there already), ``points`` of the collection,
    ``seconds`` and ``passages/s``.

    Raises
    ------
    InputError
        For a store of another encoder or layout than the collection's, a damaged store or one with an id twice, texts
        of another corpus, and an export without texts into a collection that has them.
    DiffRetrieverError
        Where the engine does not answer; what it has confirmed stays.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, encode_corpus
    >>> from diffretriever_pyserini.serving import export_to_qdrant
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> export_to_qdrant("store", "qdrant", "passages")["points"]
    2
    """
    store = store if isinstance(store, Store) else Store(store)
    options = options or ExportOptions()
    texts = StoreTexts(store, options.texts) if options.texts else None
    layout = _checked(store, options)
    with contextlib.closing(open_engine(target, collection, writing=True)) as engine:
        record = _begun(engine, store, layout, options)
        upload = record.upload or Upload.of(store, texts=texts is not None)
        record = replace(record, upload=upload)
        batches = _batches(store, upload.done, options.batch_size or _batch_size(record.layout), texts)
        started = time.perf_counter()
        with bars("Uploading", upload.passages) as bar:
            _send(engine, record, batches, bar)
        uploaded = time.perf_counter() - started
        engine.finish()
        record.finished().write(engine)
        seconds = {"seconds": time.perf_counter() - started, "passages/s": (len(store) - upload.done) / uploaded}
        counts = {"passages": len(store), "continued": upload.done, "points": engine.count()}
    return {"collection": engine.name} | counts | {name: round(value, 2) for name, value in seconds.items()}


def _begun(engine: Engine, store: Store, layout: Layout, options: ExportOptions) -> CollectionRecord:
    """The record of the collection, which is created unless there is one to which ``store`` can be added."""
    if options.rebuild and engine.read_record() is not None:
        engine.drop()
    record = read_record(engine)
    if record is None:
        record = CollectionRecord(store.spec.provenance, layout, upload=Upload.of(store, texts=bool(options.texts)))
        engine.create(layout, record.values())
    record.require(store, options, engine.name)
    return record


def _send(engine: Engine, record: CollectionRecord, batches: Iterable[list[Point]], bar: Bar) -> None:
    """Send the ``batches`` that follow what ``record`` counts, and keep the record up to date."""
    assert record.upload is not None
    done = record.upload.done
    bar.update(done)
    for number, points in enumerate(batches):
        if number % _RECORDED == 0:
            replace(record, upload=replace(record.upload, done=done)).write(engine)
        engine.upsert(points)
        done += len(points)
        bar.update(len(points))


def delete_passages(target: str | Path, collection: str, docids: Iterable[str]) -> tuple[int, list[str]]:
    """Delete passages from a collection; returns how many, and the ids that are not in it.

    Raises
    ------
    InputError
        When there is no such collection, or an upload into it is not finished: it would bring passages back.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, encode_corpus
    >>> from diffretriever_pyserini.serving import delete_passages, export_to_qdrant
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> figures = export_to_qdrant("store", "qdrant", "passages")
    >>> delete_passages("qdrant", "passages", ["p1", "p9"])
    (1, ['p9'])
    """
    deleted, missing = 0, []
    with contextlib.closing(open_engine(target, collection)) as engine:
        record = existing_record(engine)
        record.require_complete(engine.name)
        if record.upload is not None:
            raise InputError(
                f"{engine.name}: an upload is not finished ({record.upload}), and could bring passages back that are "
                "deleted now; run `diffretriever export qdrant` again first."
            )
        for batch in batched(dict.fromkeys(docids), _DELETED):
            present = {point.docid for point in engine.points(batch, vectors=False)}
            missing += [docid for docid in batch if docid not in present]
            if present:
                engine.delete(sorted(present))
            deleted += len(present)
        if deleted:
            engine.finish()
    return deleted, missing


def collection_facts(target: str | Path, collection: str) -> dict[str, Any]:
    """What a collection holds: its points, encoder and layout, and whether an upload is not finished."""
    with contextlib.closing(open_engine(target, collection)) as engine:
        record = existing_record(engine)
        return {
            "collection": engine.name,
            "points": engine.count(),
            "complete": record.complete,
            "unfinished": None if record.upload is None else str(record.upload),
            "encoder": record.provenance.encoder,
            "fingerprint": record.provenance.fingerprint,
            "layout": asdict(record.layout),
        }


def _checked(store: Store, options: ExportOptions) -> Layout:
    """The layout of the collection; InputError for a store that it cannot hold."""
    layout = Layout.of(store.spec, options)
    for docid, first, again in repeats(store.parts):
        raise InputError(
            f"{again.path}: the passage id {docid!r} is also in {first.path}, and one point cannot hold both; encode "
            "the corpus again."
        )
    return layout


def _batch_size(layout: Layout) -> int:
    """The passages of a request."""
    numbers = layout.dimension * (layout.k + 2)
    return max(1, min(_MOST_PASSAGES, _REQUEST_BYTES // (numbers * _NUMBER_BYTES)))


def _batches(store: Store, start: int, size: int, texts: StoreTexts | None) -> Iterator[list[Point]]:
    """The points of the passages after the first ``start``, at most ``size`` at a time."""
    for part, (low, high) in zip(store.parts, pairwise(store.bounds), strict=True):
        if high <= max(start, low):
            continue
        part.verify()
        payloads: Sequence[dict[str, str]] = [{DOCID: docid} for docid in part.docids]
        if texts is not None:
            payloads = [_payload(passage) for passage in texts.passages(part, part.docids)]
        weights = part.weights
        for begin in range(max(0, start - low), len(part), size):
            stop = min(begin + size, len(part))
            yield _points(part, weights[begin:stop], payloads[begin:stop], begin)


def _points(part: Part, weights: Any, payloads: Sequence[dict[str, str]], begin: int) -> list[Point]:
    """The points of the passages of ``part`` from ``begin`` on."""
    stop = begin + len(payloads)
    pooled = part.pooled(begin, stop)
    vectors = None
    if part.spec.vectors == "all":
        vectors = part.vectors(begin, stop)
        # A zero vector makes 0 the least inner product: MaxSim's clamp, which the engine does not have.
        vectors = np.concatenate([vectors, np.zeros_like(vectors[:, :1])], axis=1)
    points = []
    for i, payload in enumerate(payloads):
        named: dict[str, Vector] = {DENSE: pooled[i]}
        if vectors is not None:
            named[MULTI] = vectors[i]
        row = slice(weights.indptr[i], weights.indptr[i + 1])
        terms, impacts = weights.indices[row], weights.data[row]
        if (impacts > 0).any():
            named[LEXICAL] = Sparse(terms[impacts > 0].tolist(), impacts[impacts > 0].astype(float).tolist())
        points.append(Point(payload, named))
    return points


def _payload(passage: Passage) -> dict[str, str]:
    """The payload of a passage: docid, text, and a title if there is one."""
    title = {"title": passage.title} if passage.title else {}
    return {DOCID: passage.docid, **title, "text": passage.text}
