"""Compressed MaxSim against exact MaxSim: quality by bytes, speed, very wide vectors.

    python benchmarks/multivector_collection.py --judged nfcorpus ... --text ... --output COLLECTION
    diffretriever encode --corpus COLLECTION/corpus.jsonl --k-passage 16 --max-length 128 --output COLLECTION/store
    python benchmarks/multivector.py COLLECTION [curve] [speed] [wide] [--output FOLDER]

curve   for 1/64 to 1/2 of the float16 bytes (ids included) and for 1/16 with int8 vectors on disk: the share of the
        exact top 10 and top 100 that is retrieved, nDCG@10 on the judged collections, milliseconds per query.
speed   exact brute force (float32 and bfloat16, one query at a time and 32) against the index, measured alternately;
        rescoring 1,000 candidates.
wide    synthetic vectors of 3,584 components, less and more similar within a passage: rescoring 1,000 candidates with
        the work per query included, in one thread and shared by --threads.
export  arrays for benchmarks/multivector_plaid.py (not run by default).

benchmarks/multivector_codecs.py compares codecs and first stages.

Exact rankings are saved beside the collection. Writes multivector.md, multivector.json and plots.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.qrels import read_qrels
from diffretriever_pyserini.corpora.topics import read_topics
from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.indexes.multivector.build import MultiBuild, MultiJob
from diffretriever_pyserini.indexes.multivector.codec import RecordCodec, train_codec
from diffretriever_pyserini.indexes.multivector.exact import ExactIndex, maxsim_block
from diffretriever_pyserini.indexes.multivector.index import CompressedIndex, MultiOptions
from diffretriever_pyserini.indexes.multivector.scorer import QueryScorer
from diffretriever_pyserini.runtime.threads import Workers
from diffretriever_pyserini.store.store import Store

SHARES = (64, 32, 16, 8, 4, 2)
DEPTH = 100
Rows = list[list[str]]


class Bench:
    """The collection, its queries and their exact rankings."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.folder: Path = options.collection
        self.store = Store(self.folder / "store")
        self.topics = read_topics(self.folder / "queries.tsv")
        self.qrels = read_qrels(self.folder / "qrels.tsv")
        by_collection: dict[str, list[str]] = {}
        for qid in self.topics:
            by_collection.setdefault(qid.partition("/")[0], []).append(qid)
        sampled = (qids[:: -(-len(qids) // options.queries)] for qids in by_collection.values())
        self.topics = {qid: self.topics[qid] for qids in sampled for qid in qids}

    @property
    def float16_bytes(self) -> int:
        """Bytes of a passage's vectors in float16."""
        return 2 * self.store.spec.k_passage * self.store.spec.dimension

    @cached_property
    def queries(self) -> np.ndarray:
        """float32 [n, K_q, H]."""
        model = DiffRetriever.from_pretrained(self.store.spec.encoder, k_passage=self.store.spec.k_passage)
        return model.encode(list(self.topics.values()), side="query", batch_size=64).vectors

    @cached_property
    def docids(self) -> list[str]:
        return list(self.store.docids())

    @cached_property
    def docid_bytes(self) -> float:
        """Mean bytes of a passage's id and its end offset."""
        return 8 + sum(len(docid.encode()) for docid in self.docids) / len(self.docids)

    @cached_property
    def exact(self) -> np.ndarray:
        """Numbers of the exact top 1,000, int64 [n, 1000]."""
        path = self.folder / f"exact{len(self.topics)}.npz"
        if not path.is_file():
            results = ExactIndex(self.store).search_many(list(self.queries), 1000, self.options.threads)
            np.savez(path, rows=np.stack([rows for rows, _ in results]))
        return np.load(path)["rows"]

    def overlap(self, rankings: list[np.ndarray], n: int, depth: int, chosen: Any = slice(None)) -> float:
        """Share of the exact top ``n`` in the first ``depth`` of ``rankings``, those of the ``chosen`` queries."""
        pairs = zip(self.exact[chosen], rankings, strict=True)
        return float(np.mean([len(np.intersect1d(exact[:n], rows[:depth])) / n for exact, rows in pairs]))

    def ndcg(self, rankings: list[np.ndarray]) -> dict[str, float]:
        """nDCG@10 of each judged collection, and their mean."""
        run = {
            qid: {self.docids[row]: float(-rank) for rank, row in enumerate(rows.tolist())}
            for qid, rows in zip(self.topics, rankings, strict=True)
        }
        return self.ndcg_of(run)

    def ndcg_of(self, run: dict[str, dict[str, float]]) -> dict[str, float]:
        """nDCG@10 as in :meth:`ndcg`, from scores by docid."""
        qrels = {qid: self.qrels[qid] for qid in self.topics}
        by_query = evaluate(run, qrels, ["nDCG@10"]).per_query["nDCG@10"]
        groups: dict[str, list[float]] = {}
        for qid, value in by_query.items():
            groups.setdefault(qid.partition("/")[0], []).append(value)
        means = {name: statistics.fmean(values) for name, values in groups.items()}
        return means | {"mean": statistics.fmean(means.values())}

    def settings(self, share: int, refine: str | None = None) -> MultiBuild:
        """Settings of an index of 1/``share`` of the float16 bytes, ids included."""
        record_bytes = self.float16_bytes / share - self.docid_bytes
        return MultiBuild(bytes_per_vector=int(record_bytes / self.store.spec.k_passage), refine=refine)

    def index(self, share: int, refine: str | None = None) -> CompressedIndex:
        """The index of 1/``share`` of the float16 bytes, ids included; built once."""
        folder = self.folder / f"multi-{share}{'-' + refine if refine else ''}"
        if not folder.is_dir():
            work = folder.with_name(f"{folder.name}.work")
            MultiJob(self.store, self.settings(share, refine), work).build(folder)
            shutil.rmtree(work)
        return CompressedIndex(folder)


def curve(bench: Bench) -> Rows:
    """Quality and time by bytes."""
    exact = bench.ndcg([rows[:DEPTH] for rows in bench.exact])
    rows: Rows = [["exact", str(bench.float16_bytes), "1", "1", "1", f"{exact['mean']:.4f}", "", ""]]
    points = []
    for share, refine in [*((share, None) for share in bench.options.shares), (16, "int8")]:
        index = bench.index(share, refine)
        size = index.manifest.stride + index.manifest.candidate_bytes + bench.docid_bytes
        rankings, seconds = [], []
        for query in tqdm(bench.queries, desc=f"1/{share} {refine or ''}", disable=None):
            started = time.perf_counter()
            rankings.append(index.search(query, DEPTH)[0])
            seconds.append(time.perf_counter() - started)
        overlaps = [bench.overlap(rankings, *pair) for pair in ((10, DEPTH), (10, 10), (DEPTH, DEPTH))]
        ms, ndcg = 1000 * statistics.median(seconds), bench.ndcg(rankings)
        name = f"1/{share}" + (" and int8 on disk for 200" if refine else "")
        worst = min(ndcg[one] / exact[one] - 1 for one in exact if one != "mean")
        figures = (*overlaps, ndcg["mean"])
        rows.append([name, f"{size:.0f}", *(f"{v:.4f}" for v in figures), f"{100 * worst:+.2f} %", f"{ms:.2f}"])
        points.append((size, *overlaps, ms, refine))
    plot(points, bench.options.output)
    header = ["bytes", "per passage", "10 in 100", "10 in 10", "100 in 100", "nDCG@10, mean", "worst collection", "ms"]
    return [header, *rows]


def speed(bench: Bench) -> Rows:
    """Milliseconds per query, measured alternately."""
    store, k = bench.store, bench.store.spec.k_passage
    parts = [torch.from_numpy(np.array(part.array("vectors"))) for part in store.parts]
    queries = bench.queries[:: max(1, len(bench.queries) // 64)][:64]
    torch.set_num_threads(bench.options.threads)
    times: dict[str, list[float]] = {}

    def brute(kind: torch.dtype, size: int) -> Callable[[], None]:
        converted = [part.to(kind) for part in parts]

        def run() -> None:
            batch = queries[:size] if size > 1 else queries[brute.turn % len(queries)][None]  # type: ignore[attr-defined]
            brute.turn += 1  # type: ignore[attr-defined]
            flat = torch.from_numpy(np.ascontiguousarray(batch.reshape(-1, batch.shape[2]))).to(kind)
            best = [maxsim_block(flat, part, len(batch)).float().topk(DEPTH) for part in converted]
            torch.cat([top.values for top in best], dim=1).topk(DEPTH)

        return run

    brute.turn = 0  # type: ignore[attr-defined]
    variants: dict[str, tuple[Callable[[], Any], int]] = {}
    for kind in (torch.float32, torch.bfloat16):
        name = str(kind).removeprefix("torch.")
        variants[f"exact, {name}, one at a time"] = (brute(kind, 1), 1)
        variants[f"exact, {name}, batch of 32"] = (brute(kind, 32), 32)
    turns = itertools.cycle(queries)
    threads = bench.options.threads
    recall: dict[str, str] = {}
    for share, candidates in ((16, None), (16, 300), (32, None)):
        index = CompressedIndex(bench.index(share).folder, MultiOptions(candidates))
        name = f"index 1/{share}{f', {candidates} candidates' if candidates else ''}"
        rankings = [index.search(query, DEPTH)[0] for query in bench.queries]
        recall[f"{name}, one at a time"] = f"{bench.overlap(rankings, 10, DEPTH):.4f}"
        recall[f"{name}, batch of 32, {threads} threads"] = recall[f"{name}, one at a time"]
        variants[f"{name}, one at a time"] = (
            lambda index=index: [index.search(next(turns), DEPTH) for _ in range(8)],
            8,
        )
        variants[f"{name}, batch of 32, {threads} threads"] = (
            lambda index=index: index.search_many(list(queries[:32]), DEPTH, threads),
            32,
        )
    for turn in tqdm(range(bench.options.rounds + 1), desc="speed", disable=None):
        for name, (function, count) in variants.items():
            started = time.perf_counter()
            function()
            if turn:
                times.setdefault(name, []).append(1000 * (time.perf_counter() - started) / count)
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = {
        how: min(value for name, value in medians.items() if name.startswith("exact") and how in name)
        for how in ("one at a time", "batch of 32")
    }
    rows = [["search", "10 in 100", "ms per query", "times faster than the fastest exact search of the kind"]]
    for name, value in medians.items():
        base = next(base for how, base in fastest.items() if how in name)
        rows.append([name, recall.get(name, "1"), f"{value:.2f}", f"{base / value:.1f}"])
    with Workers(threads) as workers:
        for share in (16, 32):
            index = bench.index(share)
            records = index.records(np.linspace(0, index.passages - 1, 1000).astype(np.int64))
            one_thread, _ = rescoring(index.codec, queries, records, workers)
            rows.append(
                [
                    f"rescoring 1,000 candidates, 1/{share}, one thread",
                    "",
                    f"{one_thread:.2f}",
                    "work per query included",
                ]
            )
    read = sum(part.numel() for part in parts) * 2 / 1e9
    rows.append([f"reading {read:.2f} GB of bfloat16 at 20 GB/s would take", "", f"{50 * read:.1f}", f"K = {k}"])
    return rows


def wide(bench: Bench) -> Rows:
    """Vectors as wide as a 7B model's: 3,584 components, spectrum falling like 1/rank, 16 per passage."""
    count, k, width, k_query = 6000, 16, 3584, 4
    workers = Workers(bench.options.threads)
    rows: Rows = [["mean cosine", "bytes per passage", "10 in 100", "100 in 100", "rescoring 1,000, ms", "shared"]]
    scale = (1 / np.sqrt(np.arange(1, width + 1))).astype(np.float32)
    for noise, shares in ((0.35, (32, 16)), (0.8, (32,))):
        draw = np.random.default_rng(7)
        topics = draw.standard_normal((300, width), dtype=np.float32)
        base = topics[draw.integers(300, size=count)] + 0.7 * draw.standard_normal((count, width), dtype=np.float32)
        vectors = np.empty((count, k, width), np.float32)
        for position in range(k):
            vectors[:, position] = (base + noise * draw.standard_normal((count, width), dtype=np.float32)) * scale
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        cosine = float(np.mean(np.einsum("nh,nh->n", vectors[:, 0], vectors[:, 1])))
        targets = draw.integers(count, size=40)
        noisy = vectors[targets, :k_query] + 0.02 * draw.standard_normal((40, k_query, width), dtype=np.float32) * scale
        queries = (noisy / np.linalg.norm(noisy, axis=2, keepdims=True)).astype(np.float32)
        flat = torch.from_numpy(np.ascontiguousarray(queries.reshape(-1, width)))
        scores = np.concatenate(
            [maxsim_block(flat, torch.from_numpy(vectors[at : at + 500]), 40).numpy() for at in range(0, count, 500)], 1
        )
        exact = np.argsort(-scores, axis=1)[:, :DEPTH]
        for share in shares:
            started = time.perf_counter()
            codec = train_codec(vectors[:3000], 2 * k * width // share)
            trained = time.perf_counter() - started
            records = codec.encode(vectors)
            ranked = [np.argsort(-QueryScorer(codec, query).scores(records))[:DEPTH] for query in queries]
            shares_kept = [
                np.mean([len(np.intersect1d(a[:n], b)) / n for a, b in zip(exact, ranked, strict=True)])
                for n in (10, DEPTH)
            ]
            candidates = records[draw.permutation(count)[:1000]]
            times = rescoring(codec, queries[:25], candidates, workers)
            name = f"{cosine:.2f}, 1/{share}, {len(codec.basis)} components (trained in {trained:.0f} s)"
            figures = [f"{value:.4f}" for value in shares_kept]
            rows.append([name, str(codec.stride), *figures, *(f"{ms:.1f}" for ms in times)])
    return rows


def rescoring(codec: RecordCodec, queries: np.ndarray, records: np.ndarray, workers: Workers) -> tuple[float, float]:
    """Median milliseconds of scoring ``records`` for a query, in one thread and shared by all, measured alternately."""

    def scored(query: np.ndarray, shared: Workers | None = None) -> float:
        started = time.perf_counter()
        QueryScorer(codec, query, shared).scores(records)
        return 1000 * (time.perf_counter() - started)

    pairs = [(workers.run(scored, query), scored(query, workers)) for query in queries]
    return statistics.median(alone for alone, _ in pairs), statistics.median(shared for _, shared in pairs)


def export(bench: Bench) -> Rows:
    """Vectors, queries and exact rankings as plain arrays, for benchmarks/multivector_plaid.py."""
    folder = bench.folder / "export"
    folder.mkdir(exist_ok=True)
    np.save(folder / "vectors.npy", np.concatenate([np.asarray(part.array("vectors")) for part in bench.store.parts]))
    np.save(folder / "queries.npy", bench.queries)
    np.save(folder / "exact.npy", bench.exact[:, :DEPTH])
    return [["written", ""], [str(folder), f"{len(bench.store):,} passages"]]


def plot(points: list[tuple], folder: Path) -> None:
    """Overlap against bytes, and against milliseconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for axes, column, label in ((left, 0, "bytes per passage, ids included"), (right, 4, "ms per query")):
        for number, name in ((1, "top 10 in 100"), (2, "top 10 in 10"), (3, "top 100 in 100")):
            plain = [point for point in points if not point[5]]
            axes.plot([point[column] for point in plain], [point[number] for point in plain], "o-", label=name)
            for point in points:
                if point[5]:
                    axes.plot(point[column], point[number], "k*", markersize=9)
        axes.set_xlabel(label)
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
    left.set_ylabel("share of the exact ranking (* int8 on disk)")
    left.legend()
    figure.savefig(folder / "multivector.png", dpi=150)
    pyplot.close(figure)


BENCHMARKS: dict[str, Callable[[Bench], Rows]] = {"curve": curve, "speed": speed, "wide": wide}
EXPORT = {"export": export}


def write_table(bench: Bench, name: str, rows: Rows) -> None:
    """Write ``rows`` as NAME.md and NAME.json, and print them."""
    folder = bench.options.output
    table = markdown_table(rows[0], rows[1:])
    about = f"{len(bench.store):,} passages, {len(bench.topics)} queries, {platform.machine()}"
    (folder / f"{name}.md").write_text(f"{table}\n\n{about}\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{name} ({about})\n{table}\n", flush=True)


def main() -> None:
    """Run the chosen benchmarks and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, help="folder with queries.tsv, qrels.tsv and store/")
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, *EXPORT, []], help="default: all")
    parser.add_argument("--queries", type=int, default=330, help="most per collection (default: %(default)s)")
    parser.add_argument(
        "--shares", type=int, nargs="+", default=SHARES, metavar="N", help="1/N of the bytes, for curve"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rebuild", action="store_true", help="build the indexes again")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/multivector"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    if options.rebuild:
        for path in options.collection.glob("multi-*"):
            shutil.rmtree(path)
    for name in options.which or BENCHMARKS:
        write_table(bench, name, (BENCHMARKS | EXPORT)[name](bench))


if __name__ == "__main__":
    main()
