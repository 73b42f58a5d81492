"""Collections of a Qdrant server, and of the client's local mode: Python code that has the same calls."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ..errors import DiffRetrieverError, InputError, reason
from .engine import DENSE, DOCID, LEXICAL, MULTI, OVERSAMPLING, Point, RankFusion, Sparse, Stage, Vector, point_id
from .record import Layout, no_record

_KEY = "diffretriever"  # of the collection's metadata: the record as JSON, because engines merge nested values
_API_KEY = "QDRANT_API_KEY"
_OLDEST = (1, 16)  # the first server whose collections have metadata
_TIMEOUT = 120  # seconds for one answer
_QUANTIZATION: dict[str, Any] = {
    "int8": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    ),
    "turbo": models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(always_ram=True)),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
}


class ClientEngine:
    """A collection behind ``QdrantClient``; see :class:`.engine.Engine`."""

    def __init__(self, where: str, collection: str, **options: Any):
        self.name = f"collection {collection} at {where}"
        self._where, self._collection = where, collection
        self._server = "url" in options
        with self._answers():
            self._client = QdrantClient(**options)

    @classmethod
    def at_server(cls, url: str, collection: str) -> ClientEngine:
        """The collection of the server at ``url``, which gets the key in the variable QDRANT_API_KEY.

        Raises
        ------
        DiffRetrieverError
            Where no server answers, or it is too old.
        """
        key = os.environ.get(_API_KEY)
        engine = cls(url, collection, url=url, api_key=key, timeout=_TIMEOUT, check_compatibility=False)
        with engine._answers():
            version = engine._client.info().version
        numbers = version.partition("-")[0].split(".")[:2]
        if all(number.isdecimal() for number in numbers) and tuple(map(int, numbers)) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise InputError(f"{url}: this server is Qdrant {version}, and {oldest} or later is needed.")
        return engine

    @classmethod
    def in_folder(cls, folder: Path, collection: str) -> ClientEngine:
        """The collection of the client's local mode in ``folder``, which compares all vectors whatever is asked."""
        warnings.filterwarnings("ignore", "Local mode performs exact")
        return cls(str(folder), collection, path=str(folder))

    @staticmethod
    def is_local_folder(folder: Path) -> bool:
        """Whether the client's local mode made ``folder``."""
        return (folder / "meta.json").is_file()

    def read_record(self) -> dict[str, Any] | None:
        """See :class:`.engine.Engine`."""
        with self._answers():
            if not self._client.collection_exists(self._collection):
                return None
            metadata = self._client.get_collection(self._collection).config.metadata or {}
        try:
            return dict(json.loads(metadata[_KEY]))
        except (KeyError, TypeError, ValueError) as error:
            raise no_record(self.name) from error

    def collections(self) -> list[str]:
        """See :class:`.engine.Engine`."""
        with self._answers():
            return sorted(one.name for one in self._client.get_collections().collections)

    def create(self, layout: Layout, record: dict[str, Any]) -> None:
        """See :class:`.engine.Engine`."""
        quantization = None if layout.quantization is None else _QUANTIZATION[layout.quantization]
        size, dot = layout.dimension, models.Distance.DOT
        vectors = {
            DENSE: models.VectorParams(
                size=size, distance=dot, on_disk=quantization is not None, quantization_config=quantization
            )
        }
        if layout.k:
            vectors[MULTI] = models.VectorParams(
                size=size,
                distance=dot,
                on_disk=True,
                datatype=models.Datatype(layout.datatype),
                hnsw_config=models.HnswConfigDiff(m=0),  # only candidates are compared
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            )
        # Not uint8, which would cut impacts at 255, nor float16, which rounds them above 2048.
        index = models.SparseIndexParams(datatype=models.Datatype.FLOAT32)
        with self._answers():
            self._client.create_collection(
                self._collection,
                vectors_config=vectors,
                sparse_vectors_config={LEXICAL: models.SparseVectorParams(index=index)},
                metadata={_KEY: json.dumps(record)},
            )

    def write_record(self, record: dict[str, Any]) -> None:
        """See :class:`.engine.Engine`."""
        with self._answers():
            self._client.update_collection(self._collection, metadata={_KEY: json.dumps(record)})

    def drop(self) -> None:
        """See :class:`.engine.Engine`."""
        with self._answers():
            self._client.delete_collection(self._collection)

    def upsert(self, points: Sequence[Point]) -> None:
        """See :class:`.engine.Engine`."""
        structs = [
            models.PointStruct(
                id=str(point_id(point.docid)),
                payload=dict(point.payload),
                vector={name: _plain(vector) for name, vector in point.vectors.items()},
            )
            for point in points
        ]
        with self._answers(" What it has confirmed stays, and the same command continues."):
            self._client.upsert(self._collection, structs, wait=True)

    def delete(self, docids: Sequence[str]) -> None:
        """See :class:`.engine.Engine`."""
        with self._answers():
            self._client.delete(self._collection, [str(point_id(docid)) for docid in docids], wait=True)

    def finish(self) -> None:
        """See :class:`.engine.Engine`; a server builds its graph by itself, and the local mode has no index."""
        if self._server:
            with self._answers():
                self._client.create_payload_index(
                    self._collection, DOCID, field_schema=models.PayloadSchemaType.KEYWORD, wait=False
                )

    def count(self) -> int:
        """See :class:`.engine.Engine`."""
        with self._answers():
            return self._client.count(self._collection, exact=True).count

    def query(self, stages: Sequence[Stage | RankFusion]) -> list[dict[str, float]]:
        """See :class:`.engine.Engine`."""
        requests = [models.QueryRequest(**_fields(stage), with_payload=[DOCID]) for stage in stages]
        with self._answers():
            answers = self._client.query_batch_points(self._collection, requests)
        return [{(hit.payload or {})[DOCID]: hit.score for hit in answer.points} for answer in answers]

    def points(self, docids: Sequence[str], vectors: bool = True) -> list[Point]:
        """See :class:`.engine.Engine`."""
        ids = [str(point_id(docid)) for docid in docids]
        with self._answers():
            records = self._client.retrieve(self._collection, ids, with_payload=True, with_vectors=vectors)
        return [
            Point(record.payload or {}, {name: _vector(value) for name, value in _named(record.vector).items()})
            for record in records
        ]

    def close(self) -> None:
        """See :class:`.engine.Engine`."""
        self._client.close()

    @contextlib.contextmanager
    def _answers(self, hint: str = "") -> Iterator[None]:
        """Turn an error of the client into one sentence, followed by ``hint`` where no server answers."""
        try:
            yield
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise DiffRetrieverError(
                    f"{self._where}: the server wants a key; set the variable {_API_KEY}."
                ) from error
            raise DiffRetrieverError(f"{self.name}: the server refuses the request ({_refusal(error)}).") from error
        except ResponseHandlingException as error:
            if isinstance(error.source, ValueError):
                raise self._no_server() from error
            cause = reason(error.source)
            raise DiffRetrieverError(
                f"{self._where}: no answer from a Qdrant server ({cause}); start it, or correct the URL.{hint}"
            ) from error
        except Exception as error:
            if self._server and isinstance(error, json.JSONDecodeError):
                raise self._no_server() from error
            raise DiffRetrieverError(f"{self.name}: {reason(error)}.") from error

    def _no_server(self) -> DiffRetrieverError:
        return DiffRetrieverError(f"{self._where}: what answers there is not a Qdrant server; correct the URL.")


def _fields(stage: Stage | RankFusion) -> dict[str, Any]:
    """What ``QueryRequest`` and ``Prefetch`` have in common."""
    if isinstance(stage, RankFusion):
        # The engine counts ranks from 0.
        fusion = models.RrfQuery(rrf=models.Rrf(k=stage.k + 1))
        return {"query": fusion, "prefetch": _prefetched(stage.lists), "limit": stage.limit}
    params = models.SearchParams(
        hnsw_ef=stage.ef,
        exact=stage.scan or stage.signal == MULTI,
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING),
    )
    prefetch = _prefetched(stage.candidates)
    return {
        "query": _plain(stage.vector),
        "using": stage.signal,
        "prefetch": prefetch,
        "limit": stage.limit,
        "params": params,
    }


def _prefetched(stages: Sequence[Stage]) -> list[models.Prefetch] | None:
    return [models.Prefetch(**_fields(stage)) for stage in stages] or None


def _plain(vector: Vector) -> Any:
    """A vector as the client takes it."""
    if isinstance(vector, Sparse):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector.tolist()


def _vector(value: Any) -> Vector:
    if isinstance(value, models.SparseVector):
        return Sparse(value.indices, value.values)
    return np.array(value, np.float32)


def _named(vectors: Any) -> dict[str, Any]:
    return vectors if isinstance(vectors, dict) else {}


def _refusal(error: UnexpectedResponse) -> str:
    try:
        return str(error.structured()["status"]["error"]).rstrip(".")
    except (ValueError, LookupError, TypeError):
        return f"status {error.status_code}"
