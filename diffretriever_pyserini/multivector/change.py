"""Passages come and go without a new index: whole segments are added, single passages deleted, and room given back.

Every change writes new files beside the old ones and replaces ``multi.json`` last, so a kill leaves the index as it
was, and whoever has it open goes on with what was there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..representations import pool
from ..store.files import only_writer, write_whole
from ..store.provenance import Provenance
from ..store.reader import Store
from .build import batches_of, segment_arrays, segment_files
from .candidates import write_index
from .index import CompressedIndex
from .manifest import LOCK, SEGMENTS, Manifest, read_manifest
from .records import SegmentWriter

_BATCH = 4096


def add_passages(folder: str | Path, store: Store | str | Path, quiet: bool = False) -> Manifest:
    """Add the passages of ``store`` to the index in ``folder``; codes are made as before, nothing is trained again.

    Raises
    ------
    InputError
        When another model made the store, it is empty, or a docid is there already (a deleted one may come back).
    DiffRetrieverError
        When another process changes the index.
    """
    from tqdm import tqdm

    store = store if isinstance(store, Store) else Store(store)
    with _changing(folder) as index:
        manifest, spec = index.manifest, store.spec
        if (spec.passage_fingerprint, spec.k_passage) != (manifest.passage_fingerprint, manifest.k_passage):
            raise InputError(
                f"{store.folder} was made by {spec.encoder!r} (k_passage={spec.k_passage}, fingerprint "
                f"{spec.passage_fingerprint}), {folder} by {manifest.encoder!r} (k_passage={manifest.k_passage}, "
                f"fingerprint {manifest.passage_fingerprint}): passages of one index come from one model."
            )
        if spec.vectors != "all":
            raise InputError(f"{store.folder} kept one pooled vector a passage: encode with `--vectors all`.")
        if not len(store):
            raise InputError(f"{store.folder}: the store has no passages, so there is nothing to add.")
        _refuse_known(index, store)
        number = _next_segment(index)
        writer = SegmentWriter(index.folder / SEGMENTS / number, segment_files(manifest.refine))
        with tqdm(total=len(store), unit=" passages", desc="Adding", disable=True if quiet else None) as bar:
            for part in store.parts:
                part.verify()
                for docids, vectors in batches_of(part):
                    index.first.add(pool(vectors))
                    writer.add(docids, **segment_arrays(index.codec, vectors, manifest.refine))
                    bar.update(len(vectors))
        writer.flush()
        writer.close()
        segments = [*manifest.segments, (number, len(store))]
        return _publish(index, replace(manifest, segments=segments, candidates=_write_first(index)))


def delete_passages(folder: str | Path, docids: Iterable[str]) -> Manifest:
    """Let ``docids`` be found no more. Their records stay until :func:`compact`.

    Raises
    ------
    InputError
        For a docid that is not in the index, or was deleted before; then nothing is deleted.
    """
    with _changing(folder) as index:
        wanted = list(dict.fromkeys(docids))
        rows = [(docid, index.row_of(docid)) for docid in wanted]
        missing = [docid for docid, row in rows if row is None]
        if missing:
            raise InputError(
                f"passage {missing[0]!r} is not in {folder} ({len(missing)} of the {len(wanted)} are not): nothing was "
                "deleted."
            )
        deleted = np.sort(np.concatenate([index.deleted, np.array([row for _, row in rows], np.int64)]))
        if len(deleted) == index.rows:
            raise InputError(f"{folder}: this would delete every passage; remove the folder instead.")
        content = deleted.astype(np.int64).tobytes()
        name = f"deleted-{hashlib.sha256(content).hexdigest()[:8]}.i64"
        write_whole(index.folder / name, content)
        return _publish(index, replace(index.manifest, deleted=name, deleted_count=len(deleted)))


def compact(folder: str | Path, quiet: bool = False) -> Manifest:
    """Put all segments into one without the deleted passages, and so give their room back."""
    from tqdm import tqdm

    with _changing(folder) as index:
        manifest = index.manifest
        if manifest.deleted is None and len(manifest.segments) == 1:
            return manifest
        keep = np.setdiff1d(np.arange(index.rows), index.deleted)
        number = _next_segment(index)
        writer = SegmentWriter(index.folder / SEGMENTS / number, segment_files(manifest.refine))
        with tqdm(total=len(keep), unit=" passages", desc="Compacting", disable=True if quiet else None) as bar:
            for at in range(0, len(keep), _BATCH):
                rows = keep[at : at + _BATCH]
                writer.add(index.docids(rows), **index.stored(rows))
                bar.update(len(rows))
        writer.flush()
        writer.close()
        if len(index.deleted):
            _keep_candidates(index.first, index.deleted, keep)
        return _publish(
            index,
            replace(
                manifest, segments=[(number, len(keep))], deleted=None, deleted_count=0, candidates=_write_first(index)
            ),
        )


def _keep_candidates(first: Any, deleted: np.ndarray, keep: np.ndarray) -> None:
    """Take ``deleted`` out of the first stage and number the others from 0; a list of codes does so by itself."""
    import faiss

    first.remove_ids(faiss.IDSelectorBatch(deleted))
    if isinstance(first, faiss.IndexIVF):
        lists: Any = first.invlists
        for one in range(first.nlist):
            if size := lists.list_size(one):
                numbers = faiss.rev_swig_ptr(lists.get_ids(one), size)  # FAISS's own memory
                numbers[:] = np.searchsorted(keep, numbers)


@contextmanager
def _changing(folder: str | Path) -> Iterator[CompressedIndex]:
    """The index, open, while no other process changes it."""
    folder = Path(folder)
    read_manifest(folder)  # before the lock file: a folder that is no index stays as it is
    with only_writer(folder / LOCK, str(folder)):
        index = CompressedIndex(folder)
        _sweep(index.folder, index.manifest)
        yield index


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what ``manifest`` does not name: files of an older one, or of a change that was killed."""
    for pattern in ("candidates-*", "deleted-*"):
        for path in folder.glob(pattern):
            if path.name not in (manifest.candidates, manifest.deleted):
                path.unlink()
    named = {name for name, _ in manifest.segments}
    for path in (folder / SEGMENTS).iterdir():
        if path.is_dir() and path.name not in named:
            shutil.rmtree(path)


def _refuse_known(index: CompressedIndex, store: Store) -> None:
    seen: set[str] = set()
    for docid in store.docids():
        if index.row_of(docid) is not None or docid in seen:
            raise InputError(
                f"passage {docid!r} of {store.folder} is there already: ids must be unique; to replace it, delete it "
                "first."
            )
        seen.add(docid)


def _next_segment(index: CompressedIndex) -> str:
    """A new folder's name."""
    return f"{max(int(name) for name, _ in index.manifest.segments) + 1:05d}"


def _write_first(index: CompressedIndex) -> str:
    number = int(index.manifest.candidates.removesuffix(".faiss").rpartition("-")[2]) + 1
    name = f"candidates-{number}.faiss"
    write_index(index.folder / name, index.first)
    return name


def _publish(index: CompressedIndex, manifest: Manifest) -> Manifest:
    """Make ``manifest`` the index's, then remove what only the old one named."""
    manifest.write(index.folder)
    spec = (manifest.encoder, manifest.passage_fingerprint, manifest.k_passage, manifest.dimension)
    Provenance(*spec, manifest.passages).write(index.folder)
    _sweep(index.folder, manifest)
    return manifest
