"""One interface to Qdrant's three engines: a server, qdrant-edge in this process, and the client's local mode."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

from ..errors import DiffRetrieverError, InputError

if TYPE_CHECKING:
    import numpy as np

    from .record import Layout

DENSE, MULTI, LEXICAL = "dense", "multi", "lexical"
"""The names of a point's vectors, those of the signals that they serve."""
DOCID = "docid"
OVERSAMPLING = 2.0  # of quantised vectors, before the exact ones decide
_NAME = re.compile(r"[\w-][\w.-]{0,199}")


@dataclass(frozen=True, slots=True)
class Sparse:
    """Term weights by token id."""

    indices: list[int]
    values: list[float]


type Vector = "np.ndarray | Sparse"


@dataclass(frozen=True, slots=True)
class Point:
    """A passage: its vectors by name, and its payload, of which ``docid`` is one entry."""

    payload: Mapping[str, str]
    vectors: Mapping[str, Vector]

    @property
    def docid(self) -> str:
        """The id of the passage."""
        return self.payload[DOCID]


@dataclass(frozen=True)
class Stage:
    """One step of a query: the ``limit`` best by one vector, of the whole collection or of the ``candidates``.

    Attributes
    ----------
    signal : which vectors of the points are compared with ``vector``.
    scan : whether all vectors are compared, without a graph.
    ef : points that a search of the graph keeps.
    """

    signal: str
    vector: Vector
    limit: int
    candidates: tuple[Stage, ...] = ()
    scan: bool = False
    ef: int | None = None


@dataclass(frozen=True)
class RankFusion:
    """The ``limit`` best by the sum of 1 / (``k`` + rank) over ``lists``, added up by the engine."""

    lists: tuple[Stage, ...]
    k: int
    limit: int


class Engine(Protocol):
    """A collection in one of the engines; it may not exist yet. A failure raises DiffRetrieverError."""

    name: str
    """The collection as messages name it."""

    def read_record(self) -> dict[str, Any] | None:
        """What :meth:`write_record` wrote; None where there is no collection.

        Raises
        ------
        InputError
            For a collection without a record.
        """

    def collections(self) -> list[str]:
        """The names of all collections of the server or folder."""

    def create(self, layout: Layout, record: dict[str, Any]) -> None:
        """Make an empty collection."""

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record, after everything before it is on the disk."""

    def drop(self) -> None:
        """Remove the collection."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Add points, or replace those with the same docids."""

    def delete(self, docids: Sequence[str]) -> None:
        """Remove points."""

    def finish(self) -> None:
        """Prepare what was changed for fast searches."""

    def count(self) -> int:
        """The number of points."""

    def query(self, stages: Sequence[Stage | RankFusion]) -> list[dict[str, float]]:
        """Docids and scores of each query, best first."""

    def points(self, docids: Sequence[str], vectors: bool = True) -> list[Point]:
        """Those of the points that exist, in any order, with their vectors or without."""

    def close(self) -> None:
        """Close files and connections."""


def point_id(docid: str) -> UUID:
    """The id of a passage's point: UUIDv5 of its docid."""
    return uuid5(NAMESPACE_OID, docid)


def open_engine(target: str | Path, collection: str, writing: bool = False) -> Engine:
    """Open the engine of ``target``, a server's URL or a folder of this machine.

    Parameters
    ----------
    writing : whether the folder and the collection may be new.

    Raises
    ------
    InputError
        For a name that the engines do not take, and a folder that does not exist.
    DiffRetrieverError
        Where the server does not answer, another process uses the folder, or a package is missing.
    """
    if not _NAME.fullmatch(collection):
        raise InputError(f"the collection name {collection!r} must be letters, digits and the signs _ - . only.")
    try:
        from .client import ClientEngine

        if "://" in os.fspath(target):
            return ClientEngine.at_server(os.fspath(target), collection)
    except ImportError as error:
        raise DiffRetrieverError("Qdrant needs its client: pip install 'diffretriever-pyserini[qdrant]'.") from error
    folder = Path(target).expanduser()
    if not folder.is_dir() and not writing:
        raise InputError(f"{folder}: no such folder; name a folder of collections, or a URL with http://.")
    if ClientEngine.is_local_folder(folder):
        return ClientEngine.in_folder(folder, collection)
    try:
        from .edge import EdgeEngine
    except ImportError as error:
        if any(folder.glob("*/collection.json")):
            raise DiffRetrieverError(f"{folder} was made by qdrant-edge: pip install qdrant-edge-py.") from error
        return ClientEngine.in_folder(folder, collection)
    return EdgeEngine(folder, collection)
