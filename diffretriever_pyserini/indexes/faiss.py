"""FAISS indexes of pooled vectors by inner product: the size of each kind, training, writing and reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..errors import BUILD_AGAIN, DiffRetrieverError, InputError
from ..runtime.faiss import said
from ..runtime.threads import processors
from ..store.index_record import IndexRecord
from ..store.part import Part
from ..store.spec import StoreSpec
from ..store.store import Store
from .codes import CodesFile, file_layout
from .inverted_lists import ListsFile, lists_head
from .options import DenseKind

KINDS = get_args(DenseKind)
_SEED = 20260601
_BATCH_BYTES = 32 << 20  # of K vectors in float32
_LEAST_SAMPLE, _SAMPLE_PER_LIST = 1 << 15, 40  # training vectors; FAISS's k-means expects 39 per centroid
_RANGE_SAMPLE = 1 << 14
_CENTROIDS = 256  # of product quantisers: codes of 8 bits
_LINKS, _CONSTRUCTION, _HNSW_SEARCH = 32, 200, 128


@dataclass(frozen=True)
class DensePlan:
    """The sizes of an index of this ``kind`` for ``count`` vectors of ``dimension`` components.

    A shard is trained like an index of the whole ``collection`` (its number of vectors; None: ``count``), so that all
    shards give a vector the same code.
    """

    kind: str
    count: int
    dimension: int
    collection: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"dense index {self.kind!r} is not one of {', '.join(KINDS)}.")

    @property
    def code_bytes(self) -> int:
        """Bytes of a vector's code; product quantisers use one byte for eight or more components."""
        if self.kind in ("flat", "hnsw"):
            return 4 * self.dimension
        if self.kind == "sq8":
            return self.dimension
        most = max(1, self.dimension // 8)
        return next(m for m in range(most, 0, -1) if self.dimension % m == 0)

    @property
    def _trained_for(self) -> int:
        return self.count if self.collection is None else self.collection

    @property
    def lists(self) -> int:
        """Number of inverted lists of ``ivfpq``: the power of two next to 4 sqrt(N), at most 1,024 and N / 40.

        More lists need a larger sample and longer training, and change the recall little, as a search reads the same
        share of the collection.
        """
        count = self._trained_for
        target = min(1024, 4 * count**0.5, count / _SAMPLE_PER_LIST)
        return 1 << round(np.log2(max(1.0, target)))

    @property
    def probes(self) -> int:
        """Number of lists that a search reads."""
        return max(min(self.lists, 8), self.lists // 16)

    @property
    def memory(self) -> int:
        """Bytes of memory that a search needs; building ``hnsw`` needs as much, building the others little."""
        extra = {"hnsw": 4 * (2 * 2 * _LINKS + _LINKS), "ivfpq": 8}.get(self.kind, 0)
        return self.count * (self.code_bytes + extra)

    @property
    def sample(self) -> int:
        """Number of vectors for training."""
        if self.kind in ("flat", "hnsw"):
            return 0
        if self.kind == "sq8":  # it learns only the range of each component
            return min(self._trained_for, _RANGE_SAMPLE)
        return min(self._trained_for, max(_LEAST_SAMPLE, _SAMPLE_PER_LIST * self.lists if self.kind == "ivfpq" else 0))

    def check_memory(self, limit: int, why: str) -> None:
        """Raise DiffRetrieverError, naming smaller kinds, if a flat or HNSW index does not fit into ``limit`` bytes."""
        if self.kind not in ("flat", "hnsw") or self.memory <= limit:
            return
        others = (DensePlan(kind, self.count, self.dimension) for kind in ("sq8", "pq", "ivfpq"))
        alternatives = ", ".join(f"--dense {plan.kind} ({_gigabytes(plan.memory)})" for plan in others)
        raise DiffRetrieverError(
            f"--dense {self.kind} needs {_gigabytes(self.memory)} of memory ({self.count:,} vectors of "
            f"{self.dimension} floats), but the limit is {_gigabytes(limit)} ({why}): use {alternatives}, "
            "or raise --max-memory."
        )

    def facts(self) -> dict[str, Any]:
        """Return the entry in ``index.json``."""
        facts: dict[str, Any] = {"kind": self.kind, "bytes_per_passage": self.code_bytes, "memory": self.memory}
        if self.kind == "ivfpq":
            facts |= {"lists": self.lists, "probes": self.probes}
        return facts


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.3g} MB"


def training_sample(store: Store, size: int) -> np.ndarray:
    """Return ``size`` pooled vectors of ``store``, float32 [size, H], drawn uniformly with a fixed seed."""
    generator = np.random.default_rng(_SEED)
    chosen = np.sort(generator.choice(len(store), size, replace=False, shuffle=False))
    sample = np.empty((size, store.spec.dimension), np.float32)
    for part, begin in zip(store.parts, store.bounds, strict=False):
        for start, stop in part.pieces(_BATCH_BYTES):
            low, high = np.searchsorted(chosen, (begin + start, begin + stop))
            rows = chosen[low:high] - begin
            if len(rows) * 16 > stop - start:
                sample[low:high] = part.pooled(start, stop)[rows - start]
            else:
                for i, row in enumerate(rows.tolist(), int(low)):
                    sample[i] = part.pooled(row, row + 1)[0]
    return sample


def trained_index(plan: DensePlan, store: Store, gpu: bool = False) -> Any:
    """Return the FAISS index of ``plan``, trained on a sample of ``store`` and empty."""
    index = empty_index(plan)
    train(index, plan, store, gpu)
    return index


def empty_index(plan: DensePlan) -> Any:
    """Return the FAISS index of ``plan``, untrained and empty."""
    import faiss

    index: Any
    d, product = plan.dimension, faiss.METRIC_INNER_PRODUCT
    if plan.kind == "flat":
        return faiss.IndexFlatIP(d)
    if plan.kind == "sq8":
        return faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_8bit, product)
    if plan.kind == "pq":
        index = faiss.IndexPQ(d, plan.code_bytes, 8, product)
        index.pq.cp.min_points_per_centroid = 1
        return index
    if plan.kind == "hnsw":
        index = faiss.IndexHNSWFlat(d, _LINKS, product)
        index.hnsw.efConstruction, index.hnsw.efSearch = _CONSTRUCTION, _HNSW_SEARCH
        return index
    coarse: Any = faiss.IndexFlatIP(d)
    index = faiss.IndexIVFPQ(coarse, d, plan.lists, plan.code_bytes, 8, product)
    coarse.this.disown()
    index.own_fields, index.nprobe = True, plan.probes
    # A small collection has fewer vectors than k-means expects (docs/indexing.md says so).
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    return index


def train(index: Any, plan: DensePlan, store: Store, gpu: bool = False) -> None:
    """Train ``index`` on a sample of ``store``; the seeds of k-means are FAISS's and fixed."""
    if not plan.sample:
        return
    import faiss

    sample = training_sample(store, plan.sample)
    if plan.kind != "sq8" and len(sample) < _CENTROIDS:
        sample = np.resize(sample, (_CENTROIDS, plan.dimension))  # then every vector becomes a centroid
    if gpu and plan.kind == "ivfpq":
        helper = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(plan.dimension))  # must live as long as the training
        index.clustering_index = helper
        index.train(sample)
        index.clustering_index = None
    else:
        index.train(sample)


def threads_for(kind: str, threads: int | None) -> int:
    """Return ``threads``, or by default one for HNSW, whose graph depends on their timing, and all for other kinds."""
    if threads is None:
        return 1 if kind == "hnsw" else processors()
    return threads


def codes_file(path: Path, index: Any, plan: DensePlan) -> CodesFile | ListsFile | None:
    """Return a writer for the codes of ``index`` (trained, empty); None if FAISS must hold them until the end."""
    if plan.kind == "hnsw":
        return None
    if plan.kind == "ivfpq":
        head = lists_head(index)
        return None if head is None else ListsFile(path, index, head, plan.count)
    layout = file_layout(index)
    return None if layout is None else CodesFile(path, index, layout, plan.count)


class DenseWriter:
    """Writes Pyserini's FAISS folder (``index``, ``docid``, ``diffretriever.json``).

    Codes are written at once; HNSW's graph and vectors stay in memory until the end. ``index`` is trained and empty.
    """

    def __init__(self, folder: Path, plan: DensePlan, spec: StoreSpec, index: Any):
        self._folder, self._plan, self._spec = folder, plan, spec
        folder.mkdir(parents=True)
        self._index = index
        self._codes = codes_file(folder / "index", self._index, plan)
        self._docids = (folder / "docid").open("w", encoding="utf-8")
        if plan.kind == "hnsw":  # reserve memory: growing would hold the vectors twice at times
            import faiss

            codes: Any = faiss.downcast_index(self._index.storage).codes  # type: ignore[attr-defined]
            codes.resize(plan.count * plan.code_bytes)
            codes.resize(0)

    def add(self, part: Part, docids: list[str]) -> None:
        """Append a part."""
        for start, stop in part.pieces(_BATCH_BYTES):
            vectors = part.pooled(start, stop)
            if self._codes:
                self._codes.add(vectors)
            else:
                self._index.add(vectors)
        self._docids.writelines(f"{docid}\n" for docid in docids)

    def close(self) -> dict[str, Any]:
        """Write what is still in memory; returns the entry in ``index.json``."""
        import faiss

        self._docids.close()
        if self._codes:
            self._codes.close()
        else:
            faiss.write_index(self._index, str(self._folder / "index"))
        IndexRecord(self._spec.provenance, self._spec.dimension, self._plan.count).write(self._folder)
        return self._plan.facts()


def read_faiss_folder(folder: Path) -> tuple[Any, list[str]]:
    """Return FAISS's index and the docids of a folder in Pyserini's layout (files ``index`` and ``docid``).

    Raises
    ------
    InputError
        When a file cannot be read, or the numbers of vectors and ids differ.
    """
    import faiss

    try:
        index = faiss.read_index(str(folder / "index"))
        text = (folder / "docid").read_text(encoding="utf-8").removesuffix("\n")
    except (RuntimeError, MemoryError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder}: this FAISS index cannot be opened ({said(error)}); {BUILD_AGAIN}.") from error
    docids = [docid.rstrip() for docid in text.split("\n")] if text else []
    if "" in docids:
        raise InputError(f"{folder / 'docid'}, line {docids.index('') + 1}: no id; the file is damaged, {BUILD_AGAIN}.")
    if len(docids) != index.ntotal:
        raise InputError(
            f"{folder}: index holds {index.ntotal:,} vectors and docid {len(docids):,} ids: one of the files is "
            f"damaged or of another index; {BUILD_AGAIN}."
        )
    return index, docids
