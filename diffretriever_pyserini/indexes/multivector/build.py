"""A store into a folder of compressed vectors: trained on a sample, streamed part by part, resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files.atomic import link, read_json, write_json
from ...store.index_record import IndexRecord
from ...store.part import Part, int8_vectors
from ...store.store import Store
from ..options import MultiBuild
from . import candidates, measure, records
from .codec import RecordCodec, digest, read_codec, train_codec
from .index import CompressedIndex
from .manifest import CANDIDATES, CODEC, FORMAT, Manifest

_SEED = 20261122
_LEAST_SAMPLE = 1 << 14
_SAMPLE_BYTES = 1 << 30  # of the sample's vectors in float32
_BATCH_BYTES = 64 << 20
_STATE, _EMPTY = "building.json", "candidates.empty"


def build_multi(
    store: Store, folder: Path, options: MultiBuild, work: Path, verify: bool = True, quiet: bool = False
) -> Manifest:
    """Write the multi-vector index of ``store`` into the new folder ``folder``.

    Parameters
    ----------
    work : folder that outlives a kill; the next call with the same store and options goes on with what is in it.
        ``folder`` shares its files; the caller removes it when ``folder`` is where it should be.
    verify : check the checksum of every part on the way.

    Raises
    ------
    InputError
        For a store that kept pooled vectors only, is empty or damaged, and for too few bytes.
    """
    spec = store.spec
    if spec.vectors != "all":
        raise InputError(f"{store.folder} kept one pooled vector a passage: encode with `--vectors all` for --multi.")
    if not len(store):
        raise InputError(f"{store.folder}: the store has no passages, so there is nothing to index.")
    _begin(work, store, options)
    budget, count = options.budget(store), len(store)
    codec, first = _trained(work, store, options, budget)
    _stream(work, store, codec, first, options, verify, quiet)
    candidates.write_index(work / CANDIDATES, first)
    manifest = Manifest(
        provenance=spec.provenance,
        dimension=spec.dimension,
        passages=count,
        stride=codec.stride,
        codec=digest((work / CODEC).read_bytes()),
        candidate_bytes=candidates.passage_bytes(spec.dimension, budget, count),
        refine=options.refine,
    )
    manifest.write(work)
    manifest = replace(manifest, recall=_recall(work, store))
    manifest.write(work)
    IndexRecord(spec.provenance, spec.dimension, count).write(work)
    shutil.copytree(work, folder, copy_function=link, ignore=shutil.ignore_patterns(_STATE, _EMPTY))
    return manifest


def _recall(work: Path, store: Store) -> dict[str, Any]:
    """How much of the exact ranking of a sample the index in ``work`` returns."""
    import faiss

    size = measure.sample_size(len(store), store.spec.k_passage, store.spec.dimension)
    rows, vectors = sample_rows(len(store), size), sample_vectors(store, size)
    return measure.measure_recall(CompressedIndex(work), faiss.read_index(str(work / _EMPTY)), rows, vectors)


def _begin(work: Path, store: Store, options: MultiBuild) -> None:
    """Take over what an earlier attempt left, or begin anew where it was about something else."""
    told = json.dumps([FORMAT, asdict(store.spec), store.digest, asdict(options)], sort_keys=True)
    task = hashlib.sha256(told.encode()).hexdigest()
    state = read_json(work / _STATE) if (work / _STATE).is_file() else {}
    if state.get("task") == task:
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_json(work / _STATE, {"task": task, "parts": 0, "written": {}})


def _trained(work: Path, store: Store, options: MultiBuild, budget: int) -> tuple[RecordCodec, Any]:
    """The codec and the empty first stage; trained once, then read."""
    import faiss

    spec = store.spec
    if not (work / CODEC).is_file():
        room = budget - candidates.passage_bytes(spec.dimension, budget, len(store))
        most = max(1024, _SAMPLE_BYTES // (4 * spec.k_passage * spec.dimension))
        sample = sample_vectors(store, min(len(store), _LEAST_SAMPLE, most))
        try:
            codec = train_codec(sample, room)
        except InputError as error:
            raise InputError(
                f"{budget} bytes a passage ({budget // spec.k_passage} a vector) leave {max(0, room)} beside the first "
                f"stage's: {error}"
            ) from error
        codec.save(work / CODEC)
    if not (work / _EMPTY).is_file():
        from ...model.method import pool

        numbers = candidates.sample_size(len(store))
        index = candidates.train_candidates(sample_vectors(store, numbers, pool), budget, len(store))
        candidates.write_index(work / _EMPTY, index)
    return read_codec(work / CODEC), faiss.read_index(str(work / _EMPTY))


def _stream(
    work: Path,
    store: Store,
    codec: RecordCodec,
    first: Any,
    options: MultiBuild,
    verify: bool,
    quiet: bool,
) -> None:
    """Each part once: into the records (but for those that are there already) and the first stage."""
    from tqdm import tqdm

    from ...model.method import pool

    state = read_json(work / _STATE)
    names = [records.RECORDS, records.DOCIDS, records.BOUNDS]
    if options.refine:
        names += [records.VECTORS, records.SCALES]
    writer = records.RecordsWriter(work, names, state["written"])
    bar = tqdm(total=len(store), unit=" passages", desc="Compressing", disable=True if quiet else None)
    with bar:
        for number, part in enumerate(store.parts):
            if verify:
                part.verify()
            fresh = number >= state["parts"]
            for docids, vectors in batches_of(part):
                first.add(pool(vectors))
                if fresh:
                    writer.add(docids, **record_arrays(codec, vectors, options.refine))
                bar.update(len(vectors))
            if fresh:
                write_json(work / _STATE, state | {"parts": number + 1, "written": writer.flush()})
    writer.close()


def record_arrays(codec: RecordCodec, vectors: np.ndarray, refine: str | None) -> dict[str, np.ndarray]:
    """What the files say of ``vectors`` [n, K, H], by file name without its ending."""
    arrays = {"records": codec.encode(vectors)}
    return arrays | int8_vectors(vectors) if refine else arrays


def batches_of(part: Part) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and vectors of ``part`` in bounded pieces, float32 [n, K, H]; the same pieces in every run."""
    docids = part.docids
    for start, stop in part.pieces(_BATCH_BYTES):
        # torch wants what it may write to
        yield docids[start:stop], np.require(part.vectors(start, stop), requirements="W")


def sample_rows(count: int, size: int) -> np.ndarray:
    """``size`` of ``count`` numbers, evenly drawn, the same in every run, ascending."""
    draw = np.random.default_rng(_SEED)
    return np.sort(draw.choice(count, size, replace=False, shuffle=False))


def sample_vectors(store: Store, size: int, reduce: Any = None) -> np.ndarray:
    """The passages :func:`sample_rows` of ``store``: float32 [size, K, H] or ``reduce`` of it."""
    chosen = sample_rows(len(store), size)
    found = []
    for part, begin in zip(store.parts, store.bounds, strict=False):
        low, high = np.searchsorted(chosen, (begin, begin + len(part)))
        for group in np.array_split(chosen[low:high] - begin, max(1, (high - low) // 512)):
            if len(group):
                vectors = _picked(part, group)
                found.append(vectors if reduce is None else reduce(vectors))
    return np.concatenate(found)


def _picked(part: Part, rows: np.ndarray) -> np.ndarray:
    """float32 [n, K, H] of some passages of ``part``."""
    vectors = np.asarray(part.array("vectors")[rows], dtype=np.float32)
    return vectors * part.array("scales")[rows][:, :, None] if part.spec.dtype == "int8" else vectors
