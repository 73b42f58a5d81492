"""Encoded queries on disk: Pyserini's cached queries, and plain vectors beside them. No pickle."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import batched
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..files.atomic import write_json
from ..files.folders import whole_folder
from ..model.lexical import LUCENE_CLAUSES, strongest
from ..model.representations import Representations
from ..model.retriever import DiffRetriever

MARKER = "manifest.json"
_BATCHES_AT_ONCE = 8  # several at a time, so that the model can sort texts by length


def write_encoded_queries(
    model: DiffRetriever,
    topics: Mapping[str, str],
    output: str | Path,
    batch_size: int = 32,
    max_length: int | None = None,
) -> None:
    """Encode `topics` (query id → text) and write the folder `output`, completely or not at all.

    Each line of `queries.jsonl` is {"id", "contents", "vector": {term: int}} with the strongest 1,024 terms of the
    query (Lucene's limit). Pyserini finds queries by their stripped text, so equal texts of several ids are harmless.
    `vectors.npy` is float32 [N, H] (pooled); row i belongs to line i of `ids.txt`. Without terms (read-outs mean and
    last_token) there is no `queries.jsonl`.

    Raises
    ------
    DiffRetrieverError
        When `output` exists and is not an earlier output, or the model cannot encode a text.
    """
    provenance = model.provenance.record()  # first: the checkpoint may be replaced while queries are encoded
    vectors = np.zeros((len(topics), model.dimension), dtype=np.float32)
    with whole_folder(output, MARKER) as folder:
        with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
            done = 0
            for ids, texts, reps in _encoded(model, topics, batch_size, max_length):
                vectors[done : done + len(ids)] = reps.pooled
                done += len(ids)
                for qid, text, impacts in zip(ids, texts, reps.impacts, strict=True):
                    vector = strongest(impacts, LUCENE_CLAUSES)
                    file.write(json.dumps({"id": qid, "contents": text, "vector": vector}) + "\n")
        if not model.reader.has_terms:
            (folder / "queries.jsonl").unlink()
        np.save(folder / "vectors.npy", vectors, allow_pickle=False)
        (folder / "ids.txt").write_text("".join(f"{qid}\n" for qid in topics), encoding="utf-8")
        manifest = {
            "provenance": provenance,
            "side": "query",
            "queries": len(topics),
            "dimension": model.dimension,
            "max_length": model.layout("query", max_length).max_length,
            "dtype": str(model.dtype).removeprefix("torch."),
            "sha256": {path.name: _digest(path) for path in sorted(folder.iterdir())},
        }
        write_json(folder / MARKER, manifest)


def _encoded(
    model: DiffRetriever, topics: Mapping[str, str], batch_size: int, max_length: int | None
) -> Iterator[tuple[list[str], list[str], Representations]]:
    with tqdm(total=len(topics), unit="query", disable=None) as bar:
        for part in batched(topics.items(), max(batch_size, 1) * _BATCHES_AT_ONCE):
            ids, texts = [qid for qid, _ in part], [text for _, text in part]
            yield ids, texts, model.encode(texts, side="query", max_length=max_length, batch_size=batch_size)
            bar.update(len(part))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
