"""Collections of qdrant-edge: the server's engine in this process."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from ..errors import DiffRetrieverError, InputError, panics_as_errors, reason
from ..files.atomic import only_writer, read_json, write_json
from .engine import DENSE, DOCID, LEXICAL, MULTI, OVERSAMPLING, Point, RankFusion, Sparse, Stage, Vector, point_id
from .record import Layout

_RECORD, _SHARD = "collection.json", "shard"
_DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "turbo16": edge.VectorStorageDatatype.Turbo16,
    "turbo8": edge.VectorStorageDatatype.Turbo8,
}
_QUANTIZATION: dict[str, Any] = {
    "int8": edge.ScalarQuantizationConfig(edge.ScalarType.Int8, always_ram=True),
    "turbo": edge.TurboQuantQuantizationConfig(always_ram=True),
    "binary": edge.BinaryQuantizationConfig(always_ram=True),
}


class EdgeEngine:
    """The folder of a collection, ``shard`` and then ``collection.json``; see :class:`.engine.Engine`.

    Raises
    ------
    InputError
        When the folder holds something else.
    BusyError
        When another process uses the collection.
    """

    def __init__(self, folder: Path, collection: str):
        self.name = f"collection {collection} in {folder}"
        self._folder = folder / collection
        if others := {path.name for path in self._folder.glob("*")} - {_RECORD, f"{_RECORD}.partial", _SHARD}:
            raise InputError(f"{self._folder} holds {min(others)} and is no collection; give another name.")
        self._shard: Any = None
        self._stack = contextlib.ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(only_writer(folder / f"{collection}.lock", self.name))
        try:
            if (self._folder / _RECORD).is_file():
                with self._calls():
                    self._shard = edge.EdgeShard.load(str(self._folder / _SHARD))
        except BaseException:
            self._stack.close()
            raise

    def read_record(self) -> dict[str, Any] | None:
        """See :class:`.engine.Engine`."""
        return (
            None
            if self._shard is None
            else read_json(self._folder / _RECORD, f"remove {self._folder} and export again")
        )

    def collections(self) -> list[str]:
        """See :class:`.engine.Engine`."""
        return sorted(path.parent.name for path in self._folder.parent.glob(f"*/{_RECORD}"))

    def create(self, layout: Layout, record: dict[str, Any]) -> None:
        """See :class:`.engine.Engine`."""
        quantization = None if layout.quantization is None else _QUANTIZATION[layout.quantization]
        size, dot = layout.dimension, edge.Distance.Dot
        vectors = {
            DENSE: edge.EdgeVectorParams(size, dot, on_disk=quantization is not None, quantization_config=quantization)
        }
        if layout.k:
            vectors[MULTI] = edge.EdgeVectorParams(
                size,
                dot,
                on_disk=True,
                datatype=_DATATYPES[layout.datatype],
                hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
                multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
            )
        sparse = edge.EdgeSparseVectorParams(datatype=edge.VectorStorageDatatype.Float32)
        shutil.rmtree(self._folder, ignore_errors=True)  # what a kill in the lines below left
        self._folder.mkdir()
        with self._calls():
            config = edge.EdgeConfig(vectors=vectors, sparse_vectors={LEXICAL: sparse})
            self._shard = edge.EdgeShard.create(str(self._folder / _SHARD), config)
            self._update(edge.UpdateOperation.create_field_index(DOCID, edge.PayloadSchemaType.Keyword))
        self.write_record(record)

    def write_record(self, record: dict[str, Any]) -> None:
        """See :class:`.engine.Engine`."""
        with self._calls():
            self._shard.flush()
        write_json(self._folder / _RECORD, record)

    def drop(self) -> None:
        """See :class:`.engine.Engine`."""
        self._close_shard()
        (self._folder / _RECORD).unlink()  # first: without it the rest is nothing
        shutil.rmtree(self._folder)

    def upsert(self, points: Sequence[Point]) -> None:
        """See :class:`.engine.Engine`."""
        with self._calls():
            self._update(
                edge.UpdateOperation.upsert_points(
                    [
                        edge.Point(
                            point_id(point.docid),
                            {name: _plain(vector) for name, vector in point.vectors.items()},
                            dict(point.payload),
                        )
                        for point in points
                    ]
                )
            )

    def delete(self, docids: Sequence[str]) -> None:
        """See :class:`.engine.Engine`."""
        with self._calls():
            self._update(edge.UpdateOperation.delete_points([point_id(docid) for docid in docids]))
            self._shard.flush()

    def finish(self) -> None:
        """See :class:`.engine.Engine`."""
        with self._calls():
            self._shard.optimize()
            self._shard.flush()

    def count(self) -> int:
        """See :class:`.engine.Engine`."""
        with self._calls():
            return int(self._shard.count(edge.CountRequest(exact=True)))

    def query(self, stages: Sequence[Stage | RankFusion]) -> list[dict[str, float]]:
        """See :class:`.engine.Engine`."""
        with self._calls():
            requests = [edge.QueryRequest(**_fields(stage), with_payload=[DOCID]) for stage in stages]
            answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [{hit.payload[DOCID]: hit.score for hit in answer} for answer in answers]

    def points(self, docids: Sequence[str], vectors: bool = True) -> list[Point]:
        """See :class:`.engine.Engine`."""
        ids = [point_id(docid) for docid in docids]
        with self._calls():
            records = self._shard.retrieve(ids, with_payload=True, with_vector=vectors)
            return [
                Point(record.payload, {name: _vector(value) for name, value in (record.vector or {}).items()})
                for record in records
            ]

    def close(self) -> None:
        """See :class:`.engine.Engine`."""
        self._close_shard()
        self._stack.close()

    def _close_shard(self) -> None:
        if self._shard is not None:
            with self._calls():
                self._shard.close()
            self._shard = None

    def _update(self, operation: Any) -> None:
        self._shard.update(operation)

    @contextlib.contextmanager
    def _calls(self) -> Iterator[None]:
        """Turn an error of the engine into one sentence."""
        try:
            with panics_as_errors():
                yield
        except Exception as error:
            raise DiffRetrieverError(
                f"{self.name}: Qdrant's engine reports an error ({reason(error)}); if files are damaged, remove "
                f"{self._folder} and export the store again."
            ) from error


def _fields(stage: Stage | RankFusion) -> dict[str, Any]:
    """What ``QueryRequest`` and ``Prefetch`` have in common."""
    if isinstance(stage, RankFusion):
        # The engine counts ranks from 0.
        return {
            "query": edge.Fusion.Rrf(k=stage.k + 1),
            "prefetches": _prefetched(stage.lists),
            "limit": stage.limit,
        }
    params = edge.SearchParams(
        hnsw_ef=stage.ef,
        exact=stage.scan or stage.signal == MULTI,
        quantization=edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING),
    )
    query = edge.Query.Nearest(_plain(stage.vector), stage.signal)
    return {"query": query, "prefetches": _prefetched(stage.candidates), "limit": stage.limit, "params": params}


def _prefetched(stages: Sequence[Stage]) -> list[Any]:
    return [edge.Prefetch(**_fields(stage)) for stage in stages]


def _plain(vector: Vector) -> Any:
    """A vector as the engine takes it."""
    if isinstance(vector, Sparse):
        return edge.SparseVector(vector.indices, vector.values)
    return vector.tolist()


def _vector(value: Any) -> Vector:
    if isinstance(value, edge.SparseVector):
        return Sparse(list(value.indices), list(value.values))
    return np.array(value, np.float32)
