"""Time of our search compared with plain Pyserini on the same indexes, stage by stage, in one run.

    python benchmarks/search.py [--passages 1000] [--copies 20] [--rounds 7] [--output FOLDER]

The documentation inside Python is encoded with --encoder and indexed together with altered copies (vectors moved a
little, a quarter of the terms left out). Its summary queries are searched by the code of `diffretriever search`, and by
Pyserini's FaissSearcher, LuceneImpactSearcher and fusion with the same encoded queries. The two are measured
alternately, and medians count. The time to open the indexes is measured too. Writes search.md, search.json and
search.png.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diffretriever_pyserini import register

register()  # before Pyserini is imported, so that it uses the Java that we find

from diffretriever_pyserini import DiffRetriever, DiffRetrieverQueryEncoder  # noqa: E402
from diffretriever_pyserini.corpora.corpus import Corpus  # noqa: E402
from diffretriever_pyserini.demo.python_docs import interpreter_documentation  # noqa: E402
from diffretriever_pyserini.encoding.job import EncodeOptions, spec_for  # noqa: E402
from diffretriever_pyserini.evaluation.report import markdown_table  # noqa: E402
from diffretriever_pyserini.indexes.build import IndexOptions, build_index  # noqa: E402
from diffretriever_pyserini.model.representations import Representations  # noqa: E402
from diffretriever_pyserini.searching import SearchOptions, open_index  # noqa: E402
from diffretriever_pyserini.store.part import PartRows, write_part  # noqa: E402
from diffretriever_pyserini.store.store import ShardNote  # noqa: E402

HITS = 1000


def main() -> None:
    """Build, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="diffretriever-mini")
    parser.add_argument("--passages", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/search"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        topics = build(Path(folder), options)
        stages = measure(Path(folder, "index"), topics, options)
    rows = [
        [name, f"{ours * 1000:.2f}", f"{theirs * 1000:.2f}", f"{ours / theirs:.2f}"] for name, ours, theirs in stages
    ]
    table = markdown_table(["stage", "ours, ms", "Pyserini, ms", "ratio"], rows)
    (options.output / "search.md").write_text(f"{table}\n\n{len(topics)} queries, {platform.machine()}\n")
    (options.output / "search.json").write_text(json.dumps(stages, indent=1) + "\n")
    plot(stages, options.output / "search.png")
    print(table)


def build(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """Write a store and an index of the documentation and its altered copies; returns the queries."""
    collection = interpreter_documentation(passages=options.passages)
    model = DiffRetriever.from_pretrained(options.encoder)
    texts = [passage.text for passage in collection.passages]
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"id": p.docid}) + "\n" for p in collection.passages))
    settings = EncodeOptions(rows_per_part=len(texts))
    spec = spec_for(model, Corpus([folder / "corpus.jsonl"]), settings)
    spec.write(folder / "store")
    real = model.encode_document(texts, progress=None)
    for copy in range(options.copies):
        draw = np.random.default_rng(copy)
        vectors, weights = real.vectors, real.weights.copy()
        if copy:  # vectors of the same spread, and three quarters of the terms
            vectors = vectors + 0.03 * draw.standard_normal(vectors.shape, dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
            weights.data *= draw.random(len(weights.data)) < 0.75
            weights.eliminate_zeros()
        ids = [f"{passage.docid}.{copy}" for passage in collection.passages]
        copies = Representations(vectors, weights, model.term_names)
        write_part(folder / "store", spec, PartRows(copy, len(ids), ids), copies)
    count = len(texts) * options.copies
    ShardNote(rows=count, passages=count, skipped=0).write(folder / "store", 0, 1)
    build_index(folder / "store", folder / "index", IndexOptions(quiet=True))
    return dict(collection.queries)


def measure(index: Path, topics: dict[str, str], options: argparse.Namespace) -> list[tuple[str, float, float]]:
    """(stage, our seconds per query, Pyserini's seconds per query); for opening, seconds in total."""
    from pyserini.encode import QueryEncoder
    from pyserini.search.faiss import FaissSearcher
    from pyserini.search.hybrid import HybridSearcher
    from pyserini.search.lucene import LuceneImpactSearcher

    class Encoded(QueryEncoder):
        """For queries that are encoded already."""

        def encode(self, text: Any, **_: Any) -> Any:
            return text

    ours = open_index(index)
    queries = ours.model.encode_queries_cached(list(topics.values()))
    vectors, impacts = np.stack([query.vector for query in queries]), [query.impacts for query in queries]
    qids, threads = list(topics), options.threads
    started = time.perf_counter()
    dense_pyserini = FaissSearcher(str(index / "dense"), DiffRetrieverQueryEncoder(str(ours.encoder.name)))
    opened_dense = time.perf_counter() - started
    started = time.perf_counter()
    lexical_pyserini = LuceneImpactSearcher(str(index / "lexical"), Encoded(), min_idf=-1)
    opened_lexical = time.perf_counter() - started
    started = time.perf_counter()
    _ = ours.searcher("dense")
    ours_dense = time.perf_counter() - started
    started = time.perf_counter()
    _ = ours.searcher("lexical")
    ours_lexical = time.perf_counter() - started
    hits: dict[str, Any] = {
        "dense": dense_pyserini.batch_search(vectors, qids, HITS, threads),
        "lexical": lexical_pyserini.batch_search(impacts, qids, HITS, threads),
    }
    plain = HybridSearcher(dense_pyserini, lexical_pyserini)

    def pyserini_fuse() -> None:
        for qid in qids:
            plain._hybrid_results(hits["dense"][qid], hits["lexical"][qid], 1.0, HITS, True)

    scores = {
        "dense": ours.searcher("dense").search(queries, HITS, threads),
        "lexical": ours.searcher("lexical").search(queries, HITS, threads),
    }
    settings = SearchOptions(hits=HITS, threads=threads)
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "dense": (
            lambda: ours.searcher("dense").search(queries, HITS, threads),
            lambda: dense_pyserini.batch_search(vectors, qids, HITS, threads),
        ),
        "lexical": (
            lambda: ours.searcher("lexical").search(queries, HITS, threads),
            lambda: lexical_pyserini.batch_search(impacts, qids, HITS, threads),
        ),
        "fuse": (
            lambda: [
                ours._fuse(qid, {signal: lists[i] for signal, lists in scores.items()}, settings)
                for i, qid in enumerate(qids)
            ],
            pyserini_fuse,
        ),
    }
    rows = [("open dense", ours_dense, opened_dense), ("open lexical", ours_lexical, opened_lexical)]
    for name, pair in pairs.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in tqdm(range(options.rounds + 1), desc=name, disable=None):
            for function, times in zip(pair, seconds, strict=True):
                started = time.perf_counter()
                function()
                if turn:
                    times.append((time.perf_counter() - started) / len(qids))
        rows.append((name, statistics.median(seconds[0]), statistics.median(seconds[1])))
    searching = rows[2:]
    rows.append(("dense + lexical + fuse", sum(row[1] for row in searching), sum(row[2] for row in searching)))
    return rows


def plot(rows: list[tuple[str, float, float]], path: Path) -> None:
    """Bars of the stages of a query."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages = [row for row in rows if not row[0].startswith("open")]
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    centres = np.arange(len(stages))
    for shift, column, label in ((-0.2, 1, "diffretriever search"), (0.2, 2, "plain Pyserini")):
        axes.bar(centres + shift, [1000 * row[column] for row in stages], 0.4, label=label)
    axes.set_xticks(centres, [row[0] for row in stages])
    axes.set_ylabel("ms per query")
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
