"""fast-plaid on the vectors of benchmarks/multivector.py, in a separate environment with fast-plaid and numpy.

    python benchmarks/multivector.py COLLECTION export
    uv venv plaid && uv pip install --python plaid fast-plaid
    plaid/bin/python benchmarks/multivector_plaid.py COLLECTION/export [--bits 1 2 4]

For each number of bits: bytes per passage on disk, the shares of the exact top 10 and top 100 in its first 100, and
milliseconds per query, one at a time. Exact search in bfloat16 is timed alternately in the same process, so that the
ratios can be compared.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import torch

DEPTH = 100


def main() -> None:
    """Build, search, print a table."""
    from fast_plaid import search

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--probes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--full-scores", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    vectors = torch.from_numpy(np.load(options.export / "vectors.npy"))
    queries = torch.from_numpy(np.load(options.export / "queries.npy"))
    exact = np.load(options.export / "exact.npy")
    step = max(1, len(queries) // options.queries)
    queries, exact = queries[::step], exact[::step]
    parts = list(vectors.bfloat16().split(4096))
    turns = itertools.cycle(range(len(queries)))

    def brute() -> float:
        query = queries[next(turns)].bfloat16()
        started = time.perf_counter()
        best = []
        for part in parts:
            products = (query @ part.reshape(-1, part.shape[2]).T).view(len(query), len(part), -1)
            best.append(products.amax(dim=2).clamp(min=0).sum(dim=0).float().topk(DEPTH).values)
        torch.cat(best).topk(DEPTH)
        return 1000 * (time.perf_counter() - started)

    header = ("fast-plaid", "bytes per passage", "10 in 100", "100 in 100", "ms per query", "exact bfloat16 / it")
    print(f"| {' | '.join(header)} |\n|---|{'---:|' * (len(header) - 1)}")
    for bits in options.bits:
        folder = options.export / f"plaid-{bits}"
        if not folder.is_dir():
            index = search.FastPlaid(str(folder.with_suffix(".new")), device="cpu")
            index.create([passage.float() for passage in vectors], nbits=bits)
            shutil.move(folder.with_suffix(".new"), folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / len(vectors)
        index = search.FastPlaid(str(folder), device="cpu")
        for probes, full in itertools.product(options.probes, options.full_scores):
            rankings, times, exact_times = [], [], []
            for number, query in enumerate(queries):
                started = time.perf_counter()
                hits = index.search(
                    query[None], top_k=DEPTH, n_ivf_probe=probes, n_full_scores=full, show_progress=False
                )[0]
                times.append(1000 * (time.perf_counter() - started))
                rankings.append([row for row, _ in hits])
                if number % 20 == 0:
                    exact_times.append(brute())
            shares = [
                np.mean([len(np.intersect1d(a[:n], b)) / n for a, b in zip(exact, rankings, strict=True)])
                for n in (10, DEPTH)
            ]
            ms = statistics.median(times)
            name = f"{bits} bits, {probes} probes, {full} full scores"
            figures = f"{shares[0]:.4f} | {shares[1]:.4f} | {ms:.2f} | {statistics.median(exact_times) / ms:.1f}"
            print(f"| {name} | {size:.0f} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
