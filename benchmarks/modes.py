"""Single-vector against multi-vector search, exact against compressed, each alone and fused with the lexical list.

    python benchmarks/modes.py COLLECTION [--queries 330] [--output FOLDER]

COLLECTION is that of benchmarks/multivector.py; its store is indexed once (dense flat, multi at 1/16, lexical) into
COLLECTION/modes. Queries search all passages together. The table has nDCG@10 on each judged collection, and the share
of the exact multi-vector top 10 in the first 100 and 500 (the recall of each mode as a first stage). Milliseconds are
those of searching in batches, without encoding. Writes modes.md and modes.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from pathlib import Path

from multivector import Bench, Rows

from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.scoring.fusion import RankedList, fuse_lists, lexical_floor
from diffretriever_pyserini.scoring.ranking import Hits
from diffretriever_pyserini.searching import SearchIndex, open_index

Run = dict[str, Hits]
HITS = 1000
MODES = {
    "single (pooled), exact": "dense",
    "multi, 1/16": "multi",
    "lexical": "lexical",
    "single and lexical": "dense,lexical",
    "multi 1/16 and lexical": "multi,lexical",
    "single, multi 1/16 and lexical": "dense,multi,lexical",
}


def modes(bench: Bench) -> Rows:
    """One row per mode of searching."""
    folder = bench.folder / "modes"
    if bench.options.rebuild:
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir():
        build_index(bench.store, folder, IndexOptions(multi=bench.settings(16)))
    runs: dict[str, Run] = {}
    times: dict[str, float] = {}
    first_topics = dict(list(bench.topics.items())[:8])
    for path, modes_of in ((bench.store.folder, {"multi, exact": "multi"}), (folder, MODES)):
        with open_index(path) as index:
            for name, mode in modes_of.items():
                index.search(first_topics, mode=mode, hits=HITS)  # warm up
                before = searching(index)
                runs[name] = index.search(bench.topics, mode=mode, hits=HITS)
                times[name] = searching(index) - before
    name = "multi, exact, and lexical"
    by_signal = {"multi": runs["multi, exact"], "lexical": runs["lexical"]}
    started = time.perf_counter()
    runs[name] = {
        qid: fuse_lists(
            [
                RankedList(
                    signal,
                    run[qid],
                    floor=lexical_floor(len(run[qid]), HITS, len(bench.store)) if signal == "lexical" else None,
                )
                for signal, run in by_signal.items()
            ]
        ).hits
        for qid in bench.topics
    }
    times[name] = time.perf_counter() - started + times["multi, exact"] + times["lexical"]
    rows: Rows = []
    for name, run in runs.items():
        scores = {qid: {docid: float(-rank) for rank, (docid, _) in enumerate(hits)} for qid, hits in run.items()}
        values = bench.ndcg_of(scores)
        if not rows:
            rows.append(["mode", *values, "10 in 100", "10 in 500", "ms per query"])
        figures = (f"{value:.4f}" for value in values.values())
        figures = [*figures, *(f"{agreement(runs['multi, exact'], run, depth):.4f}" for depth in (100, 500))]
        rows.append([name, *figures, f"{1000 * times[name] / len(bench.topics):.1f}"])
    return rows


def searching(index: SearchIndex) -> float:
    """Seconds that ``index`` has spent, without opening and encoding."""
    return sum(seconds for stage, seconds in index.seconds.items() if stage not in ("open", "encode"))


def agreement(exact: Run, run: Run, depth: int) -> float:
    """Share of the exact multi-vector top 10 in the first ``depth`` of ``run``: its recall as a first stage."""
    pairs = ({docid for docid, _ in exact[qid][:10]} & {docid for docid, _ in run[qid][:depth]} for qid in exact)
    return sum(map(len, pairs)) / (10 * len(exact))


def main() -> None:
    """Index, search, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, help="folder with queries.tsv, qrels.tsv and store/")
    parser.add_argument("--queries", type=int, default=330, help="most per collection (default: %(default)s)")
    parser.add_argument("--rebuild", action="store_true", help="build the index again")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/modes"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    rows = modes(bench)
    table = markdown_table(rows[0], rows[1:])
    about = f"{len(bench.store):,} passages, {len(bench.topics)} queries, {platform.machine()}"
    (options.output / "modes.md").write_text(f"{table}\n\n{about}\n", encoding="utf-8")
    (options.output / "modes.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{table}\n{about}")


if __name__ == "__main__":
    main()
