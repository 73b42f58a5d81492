"""A collection of Qdrant: uploading, searching, what it loses against exact MaxSim, and uploads that are killed.

The store is made up: random vectors and term weights in the sizes of the default model (K = 4, H = 384, 60 terms).

    python benchmarks/qdrant.py search                  figures of the engine in this process, by what it stores
    python benchmarks/qdrant.py search --url http://localhost:6333      of a server
    python benchmarks/qdrant.py kill --kills 10         the same points after kills at random instants
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from cluster import made_up_store

from diffretriever_pyserini import DiffRetriever, Store
from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.indexes.multivector.exact import ExactIndex
from diffretriever_pyserini.model.representations import QueryRepresentation
from diffretriever_pyserini.serving import ExportOptions, export_to_qdrant, open_collection
from diffretriever_pyserini.serving.engine import Sparse, open_engine
from diffretriever_pyserini.serving.options import QdrantSearch

HITS, DEPTH = 10, 1000
MODES = ("dense", "multi", "lexical", "hybrid")
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"datatype": "float16"},
    "turbo16": {"datatype": "turbo16"},
    "turbo8": {"datatype": "turbo8"},
    "int8": {"quantization": "int8"},
    "turbo": {"quantization": "turbo"},
    "binary": {"quantization": "binary"},
}


def queries_of(store: Store, count: int) -> dict[str, QueryRepresentation]:
    """Random queries with 20 terms that passages have."""
    names = DiffRetriever.from_pretrained("diffretriever").prepare.tokenizer
    generator = np.random.default_rng(3)
    queries = {}
    for number in range(count):
        vectors = generator.standard_normal((1, store.spec.dimension))
        vectors = (vectors + 0.5 * generator.standard_normal((4, store.spec.dimension))).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        terms = names.convert_ids_to_tokens((generator.zipf(1.2, 20) % 5000 + 2000).tolist())
        queries[f"q{number}"] = QueryRepresentation(vectors.mean(axis=0), dict.fromkeys(terms, 100), vectors)
    return queries


def search(options: argparse.Namespace, folder: Path, store: Store) -> list[list[str]]:
    """A row for each of ``options.variants``."""
    queries = queries_of(store, options.queries)
    exact = ExactIndex(store).search_many([query.vectors for query in queries.values()], HITS)
    best = [set(exact_docids) for exact_docids in (ExactIndex(store).docids(rows) for rows, _ in exact)]
    first = ["stored", "passages/s", "size", "max. error", *(f"{mode}, queries/s" for mode in MODES), "rrf, queries/s"]
    rows = [[*first, "10 in 10", "10 in 10, --scan"]]
    for name in options.variants:
        target = options.url or str(folder / name)
        figures = export_to_qdrant(store, target, "benchmark", ExportOptions(rebuild=True, **VARIANTS[name]))
        size = sum(path.stat().st_blocks * 512 for path in (folder / name).rglob("*") if path.is_file())
        row = [name, f"{figures['passages/s']:,.0f}", f"{size / 1e6:,.0f} MB" if size else "?"]
        print(name, figures, flush=True)
        row += rates_and_errors(target, store, queries)
        for scan in (False, True):
            with open_collection(target, "benchmark", effort=QdrantSearch(scan=scan)) as index:
                index._encode = lambda texts, _: [queries[text] for text in texts]  # type: ignore[method-assign]
                run = index.search({qid: qid for qid in queries}, "multi", hits=DEPTH)
            kept = [len(one & {docid for docid, _ in run[qid][:HITS]}) for one, qid in zip(best, queries, strict=True)]
            row.append(f"{sum(kept) / HITS / len(kept):.4f}")
        rows.append(row)
        print(rows[0], row, sep="\n", flush=True)
    return rows


def rates_and_errors(target: str, store: Store, queries: dict[str, QueryRepresentation]) -> list[str]:
    """The largest difference of a candidate's score from exact MaxSim, and queries per second of each mode."""
    topics = {qid: qid for qid in queries}
    row_of = {docid: row for row, docid in enumerate(store.docids())}
    vectors = np.concatenate([part.vectors() for part in store.parts])
    cells = []
    with open_collection(target, "benchmark") as index:
        index._encode = lambda texts, _: [queries[text] for text in texts]  # type: ignore[method-assign]
        error = 0.0
        for qid, hits in index.search(topics, "multi", hits=DEPTH).items():
            rows = [row_of[docid] for docid, _ in hits]
            products = np.einsum("qh,nkh->nqk", queries[qid].vectors, vectors[rows], optimize=True)
            expected = np.maximum(products.max(axis=2), 0).sum(axis=1)
            error = max(error, float(np.abs(expected - [score for _, score in hits]).max()))
        for mode, fusion in (*((mode, "minmax") for mode in MODES), ("hybrid", "rrf")):
            started = time.perf_counter()
            index.search(topics, mode, hits=DEPTH, fusion=fusion)
            cells.append(f"{len(topics) / (time.perf_counter() - started):.1f}")
    return [f"{error:.1e}", *cells]


def digest(target: str | Path, store: Store) -> str:
    """A digest over all points of the collection."""
    total = hashlib.sha256()
    with closing(open_engine(target, "benchmark")) as engine:
        for docids in batched(store.docids(), 500):
            for point in sorted(engine.points(docids), key=lambda point: point.docid):
                total.update(point.docid.encode())
                for name, vector in sorted(point.vectors.items()):
                    total.update(f"{name} {sorted(zip(vector.indices, vector.values, strict=True))}".encode()
                                 if isinstance(vector, Sparse) else name.encode() + vector.tobytes())  # fmt: skip
        total.update(str(engine.count()).encode())
    return total.hexdigest()


def recorded(target: Path) -> int | None:
    """How many passages the record of an unfinished upload counts."""
    path = target / "benchmark" / "collection.json"
    upload = json.loads(path.read_text())["upload"] if path.exists() else None
    return None if upload is None else int(upload["done"])


def kill(options: argparse.Namespace, folder: Path, store: Store) -> list[list[str]]:
    """Kill uploads at random instants until ``options.kills`` were, then compare with an unbroken upload."""
    whole, target = folder / "whole", folder / "killed"
    export_to_qdrant(store, whole, "benchmark")
    command = [sys.executable, "-m", "diffretriever_pyserini", "export", "qdrant", "--store", str(store.folder)]
    command += ["--path", str(target), "--collection", "benchmark", "--batch-size", "4", "--quiet"]
    generator, killed = random.Random(options.seed), []
    while len(killed) < options.kills:
        # Later kills come later in the upload; the last of them well before it ends.
        least = 0.95 * len(store) * (len(killed) + generator.random()) / options.kills
        process = subprocess.Popen(command)
        while process.poll() is None and (recorded(target) or 0) < least:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            print(f"finished after {len(killed)} kills; begins again", flush=True)
            continue
        killed.append(str(recorded(target)))
        print(f"kill {len(killed)}: {killed[-1]} passages were recorded", flush=True)
    figures = export_to_qdrant(store, target, "benchmark")
    same = digest(whole, store) == digest(target, store)
    rows = [["kills", "recorded at each", "continued from", "points", "equal to an unbroken upload"]]
    return [*rows, [str(len(killed)), " ".join(killed), str(figures["continued"]), str(figures["points"]), str(same)]]


def main() -> None:
    """Run one part and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("search", "kill"))
    parser.add_argument("--passages", type=int, default=20_480)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["float32"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a server, instead of the engine in this process")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = made_up_store(Path(folder), options.passages)
        run = search if options.part == "search" else kill
        header, *rows = run(options, Path(folder), store)
        print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
