"""Stores of random vectors, the three engines, and an encoder whose queries are random, too."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import Store, scoring
from diffretriever_pyserini.model.provenance import Provenance
from diffretriever_pyserini.model.representations import QueryRepresentation
from diffretriever_pyserini.serving import export_to_qdrant, open_collection
from diffretriever_pyserini.serving.options import ExportOptions
from diffretriever_pyserini.serving.searching import CollectionIndex

from ..indexes.conftest import all_pooled, made_up_provenance, made_up_store

pytest.importorskip("qdrant_client")

from .server import Server

DIMENSION, TERMS, COUNT = 16, 40, 120
DOCIDS = ["Zürich", "東京-7", "🙂", "a/b\\c", '"quoted"', "x" * 3000, "007", "7", "null", "e\u0301", "\u00e9"]
DOCIDS += [f"p{i}" for i in range(COUNT - len(DOCIDS))]
TOPICS = {f"q{i}": f"query {i}" for i in range(5)} | {"empty": "empty"}


def write_store(folder: Path, **changes: Any) -> Store:
    """A store of 120 passages in four parts, with odd docids and impacts far above 2048."""
    options = {"dimension": DIMENSION, "rows_per_part": 32, "terms": TERMS, "docids": DOCIDS, "most": 8900} | changes
    return made_up_store(folder, len(options["docids"]), **options)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """That store."""
    return write_store(tmp_path_factory.mktemp("serving") / "store")


@dataclass
class Model:
    """Encodes each text as a random query, which depends on the text only; "empty" has no terms."""

    config: Any = field(default_factory=lambda: SimpleNamespace(hybrid_alpha=0.5))
    term_names: Any = field(default_factory=lambda: SimpleNamespace(row=lambda term: int(term[1:])))

    def encode_queries_cached(self, texts: list[str], batch_size: int) -> list[QueryRepresentation]:
        """The queries."""
        return [random_query(text) for text in texts]


def random_query(text: str) -> QueryRepresentation:
    """A query of three vectors and five terms."""
    generator = np.random.default_rng(zlib.crc32(text.encode()))
    vectors = generator.standard_normal((3, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    terms = generator.choice(TERMS, 5, replace=False).tolist()
    impacts = {} if text == "empty" else {f"t{term}": int(generator.integers(1, 900)) for term in terms}
    return QueryRepresentation(vectors.mean(axis=0), impacts, vectors)


@dataclass
class Encoder:
    """Stands for the encoder that made the stores."""

    provenance: Provenance = field(default_factory=made_up_provenance)
    model: Model = field(default_factory=Model)
    own_query_side: bool = True


@dataclass
class Collections:
    """Collections of one engine."""

    kind: str
    target: str
    server: Server | None = None

    def export(self, store: Store | Path, name: str = "c", **options: Any) -> dict[str, Any]:
        """Upload a store."""
        return export_to_qdrant(store, self.target, name, ExportOptions(**options))

    def open(self, name: str = "c", **options: Any) -> CollectionIndex:
        """Open a collection with the encoder of the made-up stores."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diffretriever_pyserini.serving.searching.open_encoder", lambda *_, **__: Encoder())
            return open_collection(self.target, name, **options)


# The server of the tests is the local mode behind the REST interface, so the latter alone shows little more.
@pytest.fixture(params=["edge", "server", pytest.param("local", marks=pytest.mark.rare)])
def collections(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Collections]:
    """Each engine in turn, empty."""
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    if request.param == "edge":
        pytest.importorskip("qdrant_edge")
    if request.param == "local":
        without_edge(monkeypatch)
    if request.param != "server":
        yield Collections(request.param, str(tmp_path / "collections"))
        return
    with Server() as server:
        yield Collections("server", server.url, server)
        server.shutdown()


def without_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where qdrant-edge is not installed."""
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    monkeypatch.delitem(sys.modules, "diffretriever_pyserini.serving.edge", raising=False)


def exact_scores(store: Store, signal: str, text: str) -> dict[str, float]:
    """The score of every passage of a store, computed with numpy; lexical ones above 0 only."""
    query, docids = random_query(text), list(store.docids())
    if signal == "dense":
        scores = scoring.pooled_scores(query.vector[None], all_pooled(store))[0]
    elif signal == "multi":
        scores = scoring.maxsim(query.vectors[None], np.concatenate([part.vectors() for part in store.parts]))[0]
    else:
        weights = np.concatenate([part.weights.toarray() for part in store.parts])
        scores = sum(weights[:, int(term[1:])] * float(impact) for term, impact in query.impacts.items())
        scores = np.zeros(len(docids)) + scores
        return {docid: score for docid, score in zip(docids, scores.tolist(), strict=True) if score > 0}
    return dict(zip(docids, scores.tolist(), strict=True))
