"""Builds a multi-vector index from a store: trained on a sample, streamed part by part, resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files.atomic import link, read_json, whole_file, write_json
from ...store.index_record import IndexRecord
from ...store.part import Part, int8_vectors
from ...store.store import Store
from ..options import MultiBuild
from ..progress import NO_BARS, Bars
from ..trained import Trained
from . import candidates, measure, records
from .codec import RecordCodec, digest, read_codec, train_codec
from .index import CompressedIndex
from .manifest import CANDIDATES, CODEC, FORMAT, Manifest

_SEED = 20261122
_LEAST_SAMPLE = 1 << 14
_SAMPLE_BYTES = 1 << 30  # of the sample's vectors in float32
_BATCH_BYTES = 64 << 20
_STATE, _EMPTY_INDEX = "building.json", "candidates.empty"


@dataclass(frozen=True)
class MultiJob:
    """The building of the multi-vector index of ``store``: what all steps need.

    Attributes
    ----------
    work : folder that survives a kill; the next job with the same store and options continues from it.
    verify : check the checksum of every part.
    bars : show the progress.
    trained : codec and first stage of the collection whose shard this is; None trains them on ``store``.
    """

    store: Store
    options: MultiBuild
    work: Path
    verify: bool = True
    bars: Bars = NO_BARS
    trained: Trained | None = None

    def build(self, folder: Path) -> Manifest:
        """Write the new folder ``folder``, which shares its files with ``work``.

        The caller removes ``work`` when ``folder`` has its final name.

        Raises
        ------
        InputError
            For a store of pooled vectors only, an empty or damaged store, and too few bytes.
        """
        check_store(self.store)
        work, spec, count = self.work, self.store.spec, len(self.store)
        self._begin()
        codec, first_stage = self._trained()
        self._stream(codec, first_stage)
        candidates.write_index(work / CANDIDATES, first_stage)
        manifest = Manifest(
            provenance=spec.provenance,
            dimension=spec.dimension,
            passages=count,
            stride=codec.stride,
            codec=digest((work / CODEC).read_bytes()),
            candidate_bytes=candidates.passage_bytes(spec.dimension, self.options.budget(self.store), self._collection),
            refine=self.options.refine,
        )
        manifest.write(work)
        manifest = replace(manifest, recall=_recall(work, self.store))
        manifest.write(work)
        IndexRecord(spec.provenance, spec.dimension, count).write(work)
        shutil.copytree(work, folder, copy_function=link, ignore=shutil.ignore_patterns(_STATE, _EMPTY_INDEX))
        return manifest

    @property
    def _collection(self) -> int:
        """The number of passages for which codec and first stage are trained."""
        return len(self.store) if self.trained is None else self.trained.passages

    def _begin(self) -> None:
        """Continue an earlier attempt if it had the same store and options, or start again."""
        options, store = asdict(self.options), self.store
        inputs = json.dumps([FORMAT, asdict(store.spec), store.digest, options, self._collection], sort_keys=True)
        task = hashlib.sha256(inputs.encode()).hexdigest()
        state = read_json(self.work / _STATE) if (self.work / _STATE).is_file() else {}
        if state.get("task") == task:
            return
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        write_json(self.work / _STATE, {"task": task, "parts": 0, "written": {}})

    def _trained(self) -> tuple[RecordCodec, Any]:
        """Return the codec and the empty first-stage index."""
        import faiss

        if self.trained is None:
            train_multi(self.store, self.work, self.options)
        else:
            for name in (CODEC, _EMPTY_INDEX):
                with whole_file(self.work / name) as partial:
                    shutil.copyfile(self.trained.folder / name, partial)
        return read_codec(self.work / CODEC), faiss.read_index(str(self.work / _EMPTY_INDEX))

    def _stream(self, codec: RecordCodec, first_stage: Any) -> None:
        """Add each part to the first stage and, unless an earlier attempt did, to the records."""
        from ...model.method import pool

        state = read_json(self.work / _STATE)
        names = [records.RECORDS, records.DOCIDS, records.BOUNDS]
        if self.options.refine:
            names += [records.VECTORS, records.SCALES]
        writer = records.RecordsWriter(self.work, names, state["written"])
        with self.bars("Compressing", len(self.store)) as bar:
            for number, part in enumerate(self.store.parts):
                if self.verify:
                    part.verify()
                new = number >= state["parts"]
                for docids, vectors in batches_of(part):
                    first_stage.add(pool(vectors))
                    if new:
                        writer.add(docids, **record_arrays(codec, vectors, self.options.refine))
                    bar.update(len(vectors))
                if new:
                    write_json(self.work / _STATE, state | {"parts": number + 1, "written": writer.flush()})
        writer.close()


def check_store(store: Store) -> None:
    """Raise InputError for a store without passages, or with one pooled vector per passage."""
    if store.spec.vectors != "all":
        raise InputError(f"{store.folder} has one pooled vector per passage: encode with `--vectors all` for --multi.")
    if not len(store):
        raise InputError(f"{store.folder}: the store has no passages, so there is nothing to index.")


def train_multi(store: Store, folder: Path, options: MultiBuild) -> None:
    """Train the codec and the empty first-stage index that ``folder`` does not hold yet, on a sample of ``store``.

    Raises
    ------
    InputError
        For too few bytes.
    """
    spec, budget = store.spec, options.budget(store)
    if not (folder / CODEC).is_file():
        size = budget - candidates.passage_bytes(spec.dimension, budget, len(store))
        most = max(1024, _SAMPLE_BYTES // (4 * spec.k_passage * spec.dimension))
        sample = sample_vectors(store, min(len(store), _LEAST_SAMPLE, most))
        try:
            codec = train_codec(sample, size)
        except InputError as error:
            raise InputError(
                f"{budget} bytes per passage ({budget // spec.k_passage} per vector) leave {max(0, size)} beside the "
                f"first stage: {error}"
            ) from error
        codec.save(folder / CODEC)
    if not (folder / _EMPTY_INDEX).is_file():
        from ...model.method import pool

        numbers = candidates.sample_size(len(store))
        index = candidates.train_candidates(sample_vectors(store, numbers, pool), budget, len(store))
        candidates.write_index(folder / _EMPTY_INDEX, index)


def _recall(work: Path, store: Store) -> dict[str, Any]:
    """Measure how much of the exact ranking of a sample the index in ``work`` returns."""
    import faiss

    size = measure.sample_size(len(store), store.spec.k_passage, store.spec.dimension)
    rows, vectors = sample_rows(len(store), size), sample_vectors(store, size)
    return measure.measure_recall(CompressedIndex(work), faiss.read_index(str(work / _EMPTY_INDEX)), rows, vectors)


def record_arrays(codec: RecordCodec, vectors: np.ndarray, refine: str | None) -> dict[str, np.ndarray]:
    """Return the arrays that are written for ``vectors`` [n, K, H], by file name without its suffix."""
    arrays = {"records": codec.encode(vectors)}
    return arrays | int8_vectors(vectors) if refine else arrays


def batches_of(part: Part) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield ids and vectors, float32 [n, K, H], of ``part`` in batches of bounded size, the same in every run."""
    docids = part.docids
    for start, stop in part.pieces(_BATCH_BYTES):
        # torch expects writable arrays
        yield docids[start:stop], np.require(part.vectors(start, stop), requirements="W")


def sample_rows(count: int, size: int) -> np.ndarray:
    """Return ``size`` of ``count`` numbers, drawn uniformly with a fixed seed, ascending."""
    generator = np.random.default_rng(_SEED)
    return np.sort(generator.choice(count, size, replace=False, shuffle=False))


def sample_vectors(store: Store, size: int, reduce: Any = None) -> np.ndarray:
    """Return the vectors of the passages :func:`sample_rows`, float32 [size, K, H], or ``reduce`` of them."""
    chosen = sample_rows(len(store), size)
    batches = []
    for part, begin in zip(store.parts, store.bounds, strict=False):
        low, high = np.searchsorted(chosen, (begin, begin + len(part)))
        for group in np.array_split(chosen[low:high] - begin, max(1, (high - low) // 512)):
            if len(group):
                vectors = _vectors_of(part, group)
                batches.append(vectors if reduce is None else reduce(vectors))
    return np.concatenate(batches)


def _vectors_of(part: Part, rows: np.ndarray) -> np.ndarray:
    """Return float32 [n, K, H] of the passages ``rows`` of ``part``."""
    vectors = np.asarray(part.array("vectors")[rows], dtype=np.float32)
    return vectors * part.array("scales")[rows][:, :, None] if part.spec.dtype == "int8" else vectors
