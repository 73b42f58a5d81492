"""A small index of a tiny real model, in both layouts: one index folder, and Pyserini's two folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffretriever_pyserini import DiffRetrieverDocumentEncoder

# Pyserini is imported inside the fixtures only: pytest imports this file before it installs its own signal handlers,
# which would then replace those of the Java virtual machine and end the process.

PASSAGES = {
    "p1": "the quick brown fox jumps over the lazy dog",
    "p2": "diffusion language models predict masked positions jointly",
    "p3": "an inverted index stores impacts of terms",
    "p4": "dense vectors are kept in memory and compared by inner product",
    "p5": "interest rates in finance rose again last year",
    "p6": "the of and",
    "007": "language models and finance",
}
TOPICS = {
    "q1": "which models predict masked positions",
    "q2": "fox and dog",
    "007": "finance of language models",
    "q4": "the of",  # stopwords only: nothing lexical
    "q5": "fox and dog",  # the same text under a second id
    "10": "zebra",
}


@pytest.fixture(scope="session")
def tiny_name(tiny_dream: Path) -> str:
    """Encoder name of a tiny Dream checkpoint with random weights, H = 64."""
    return f"diffretriever:{tiny_dream}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_name: str) -> Path:
    """INDEX of the passages; INDEX/dense and INDEX/lexical were made by Pyserini's own writers."""
    from diffretriever_pyserini import DiffRetrieverDocumentEncoder

    folder = tmp_path_factory.mktemp("INDEX")
    write_signals(folder, tiny_name, PASSAGES)
    write_record(folder, DiffRetrieverDocumentEncoder(tiny_name))
    return folder


def write_signals(folder: Path, name: str, passages: dict[str, str]) -> None:
    """FAISS and Lucene index of ``passages`` by Pyserini's own writers."""
    from pyserini.encode import JsonlRepresentationWriter
    from pyserini.encode.optional import FaissRepresentationWriter
    from pyserini.pyclass import autoclass

    from diffretriever_pyserini import DiffRetrieverDocumentEncoder

    texts, vectors = list(passages.values()), folder.with_name(f"{folder.name}.vectors")
    for encoder, writer in (
        (DiffRetrieverDocumentEncoder(name), FaissRepresentationWriter(str(folder / "dense"), dimension=64)),
        (DiffRetrieverDocumentEncoder(f"{name}-lexical"), JsonlRepresentationWriter(str(vectors))),
    ):
        with writer:
            writer.write({"id": list(passages), "text": texts, "vector": encoder.encode(texts)}, ["text"])
    options = ["-generator", "DefaultLuceneDocumentGenerator", "-threads", "1", "-impact", "-pretokenized"]
    paths = ["-input", str(vectors), "-index", str(folder / "lexical")]
    autoclass("io.anserini.index.IndexCollection").main(["-collection", "JsonVectorCollection", *paths, *options])


def write_record(folder: Path, encoder: DiffRetrieverDocumentEncoder, **changes: object) -> None:
    """``index.json`` as `diffretriever index` writes it."""
    record = {
        "format": 2,
        "provenance": encoder.model.provenance.record(),
        "dimension": 64,
        "passages": len(PASSAGES),
        "dense": {},
        "lexical": {},
    }
    (folder / "index.json").write_text(json.dumps(record | changes))


@pytest.fixture(scope="session")
def scores(tiny_dream: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Query id → passage → (dense, lexical) score, computed without Pyserini."""
    from diffretriever_pyserini import DiffRetriever, scoring

    model = DiffRetriever.from_pretrained(str(tiny_dream))
    passages = model.encode(list(PASSAGES.values()), side="passage")
    queries = model.encode(list(TOPICS.values()), side="query")
    dense = scoring.pooled_scores(queries.pooled, passages.pooled)
    lexical = scoring.lexical_scores(queries.weights, passages.weights)
    return {
        qid: {docid: (float(dense[i, j]), float(lexical[i, j])) for j, docid in enumerate(PASSAGES)}
        for i, qid in enumerate(TOPICS)
    }
