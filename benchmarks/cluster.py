"""One worker against two on a Ray cluster of this machine, and what it costs to merge the lists of many shards.

    python benchmarks/cluster.py encode [--rounds 3] [--passages 800]
    python benchmarks/cluster.py merge [--rounds 5] [--passages 65536]

`encode`: the default model encodes generated passages of 20 to 120 words with one worker of one thread, and with two,
in turn. The limit is the number of processors. Loading the model is not counted: the time begins with the first
passage.

`merge`: an index of generated vectors and term weights (the default model's sizes), in 1, 2, 8 and 64 shards, opened
in one process and searched by 64 queries at depth 1000. Ratios are to one shard of the same run. `merging alone` is
the part of the merge.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from diffretriever_pyserini import DiffRetriever, IndexOptions, Store, build_index
from diffretriever_pyserini.cluster.encoding import EncodeTask, encode_on_ray
from diffretriever_pyserini.cluster.options import ClusterOptions
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import spec_for
from diffretriever_pyserini.encoding.options import EncodeOptions
from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.indexes import MultiBuild
from diffretriever_pyserini.model.representations import QueryRepresentation, Representations
from diffretriever_pyserini.searching.encoder import EncoderIdentity
from diffretriever_pyserini.searching.folder import read_index
from diffretriever_pyserini.searching.opening import Opener
from diffretriever_pyserini.searching.shards import merged
from diffretriever_pyserini.store.part import PartRows, write_part
from diffretriever_pyserini.store.store import ShardNote

Rows = list[list[str]]
WORDS = ("retrieval", "passage", "index", "query", "term", "weight", "vector", "model", "mask", "position", "language")
SHARDS = (1, 2, 8, 64)
QUERIES, DEPTH, TERMS = 64, 1000, 60


def words(generator: np.random.Generator, count: int) -> str:
    return " ".join(f"{WORDS[number % len(WORDS)]}{number // 40}" for number in generator.zipf(1.3, count) % 4000)


class Clock:
    """Notes when the first passage is being encoded and when the last shard ends."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def update(self, progress: dict[str, Any]) -> None:
        self.begin = self.begin or time.perf_counter()

    def finish(self, shard: int, result: Any) -> None:
        self.end = time.perf_counter()

    def say(self, text: str) -> None:
        print(text)


def encode(options: argparse.Namespace, folder: Path) -> Rows:
    """Passages per second with one worker and with two."""
    import ray

    generator = np.random.default_rng(1)
    corpus = folder / "corpus.jsonl"
    with corpus.open("w") as file:
        for i in range(options.passages):
            print(json.dumps({"_id": f"p{i}", "text": words(generator, int(generator.integers(20, 120)))}), file=file)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(options.rounds):
        for workers in rates:
            ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            clock = Clock()
            settings = EncodeOptions(shards=4, rows_per_part=max(1, options.passages // 20), workers=0)
            task = EncodeTask("diffretriever", (str(corpus),), str(folder / f"S{number}-{workers}"), settings)
            encode_on_ray(task, ClusterOptions(cpus_per_worker=1), clock)
            ray.shutdown()
            rates[workers].append(options.passages / (clock.end - clock.begin))
            print(f"round {number + 1}, {workers} workers: {rates[workers][-1]:.1f} passages/s", flush=True)
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    rows = [["workers", "passages/s", "ratio", "limit"]]
    rows.append(["1", f"{statistics.median(rates[1]):.1f}", "1", "1"])
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return [*rows, ["2", f"{statistics.median(rates[2]):.1f}", f"{statistics.median(ratios):.2f} ({spread})", "2"]]


def made_up_store(folder: Path, passages: int) -> Store:
    """A store of random vectors and weights that the default model could have made."""
    model = DiffRetriever.from_pretrained("diffretriever")
    (folder / "corpus.jsonl").write_text('{"id": "p", "contents": "none of these"}\n')
    spec = spec_for(model, Corpus([str(folder / "corpus.jsonl")]), EncodeOptions(rows_per_part=passages // 64))
    store, generator = folder / "store", np.random.default_rng(2)
    spec.write(store)
    size, k, width = spec.rows_per_part, spec.k_passage, spec.dimension
    for number in range(64):
        vectors = generator.standard_normal((size, 1, width)) + 0.5 * generator.standard_normal((size, k, width))
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        terms = generator.zipf(1.2, (size, TERMS)) % 5000 + 2000
        values = generator.integers(1, 300, terms.size)
        weights = scipy.sparse.csr_matrix(
            (values, (np.repeat(np.arange(size), TERMS), terms.ravel())), shape=(size, spec.vocab_size), dtype=np.int32
        )
        docids = [f"p{number * size + i}" for i in range(size)]
        made = Representations(vectors.astype(np.float32), weights, None)  # type: ignore[arg-type]
        write_part(store, spec, PartRows(number, size, docids), made)
    ShardNote(64 * size, 64 * size, 0).write(store, 0, 1)
    return Store(store)


def merge(options: argparse.Namespace, folder: Path) -> Rows:
    """Milliseconds per query of each signal by the number of shards."""
    store = made_up_store(folder, options.passages)
    for shards in SHARDS:
        settings = IndexOptions("flat", True, MultiBuild(), shards, quiet=True)
        build_index(store, folder / f"I{shards}", settings)
    names = DiffRetriever.from_pretrained("diffretriever").prepare.tokenizer
    generator = np.random.default_rng(3)
    queries = []
    for _ in range(QUERIES):
        vectors = generator.standard_normal((4, store.spec.dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        terms = names.convert_ids_to_tokens((generator.zipf(1.2, 20) % 5000 + 2000).tolist())
        queries.append(QueryRepresentation(vectors.mean(axis=0), dict.fromkeys(terms, 100), vectors))
    opener = Opener(EncoderIdentity(store.spec.provenance, store.spec.dimension))
    threads = os.cpu_count() or 1
    rows = [["signal", *(f"{shards} shards" for shards in SHARDS), "merging alone"]]
    for signal in ("dense", "multi", "lexical"):
        searchers = {shards: opener.open(read_index(folder / f"I{shards}"), signal) for shards in SHARDS}
        times: dict[int, list[float]] = {shards: [] for shards in SHARDS}
        for _ in range(options.rounds + 1):  # the first warms up
            for shards, searcher in searchers.items():
                times[shards].append(seconds(lambda: searcher.search(queries, DEPTH, threads)))  # noqa: B023
        best = {shards: 1000 * statistics.median(values[1:]) / QUERIES for shards, values in times.items()}
        lists = [one.search(queries, DEPTH, threads) for one in searchers[64]._searchers]  # type: ignore[attr-defined]
        alone = 1000 * min(seconds(lambda: merged(lists, DEPTH)) for _ in range(3)) / QUERIES  # noqa: B023
        cells = [f"{best[shards]:.2f} ms ({best[shards] / best[1]:.2f})" for shards in SHARDS]
        rows.append([signal, *cells, f"{alone:.2f} ms of 64"])
        print(rows[-1], flush=True)
        for searcher in searchers.values():
            searcher.close()
    return rows


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("encode", "merge"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passages", type=int)
    options = parser.parse_args()
    options.passages = options.passages or {"encode": 800, "merge": 65536}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        rows = {"encode": encode, "merge": merge}[options.what](options, Path(folder))
    print(markdown_table(rows[0], rows[1:]))


if __name__ == "__main__":
    main()
