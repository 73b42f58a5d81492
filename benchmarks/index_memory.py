"""Peak memory of `diffretriever index --dense` for many passages against few, without encoding.

    python benchmarks/index_memory.py [--passages 1000000] [--few 10000] [--dimension 64] [--kinds sq8 pq ivfpq]

Uses stores of random vectors (K = 2, float16) without terms. Each command runs in a separate process; the figure is its
largest resident memory (Linux). `benchmarks/encode.py memory` measures the same with a corpus and a model, and takes
ten times as long. Writes index_memory.md and index_memory.json to --output.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from encode import measured

from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.indexes.faiss import KINDS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.indexes.conftest import made_up_store


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["sq8", "pq", "ivfpq"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/encode"))
    options = parser.parse_args()
    peaks: dict[str, list[int]] = {kind: [] for kind in options.kinds}
    with tempfile.TemporaryDirectory() as folder:
        for count in (options.few, options.passages):
            store = Path(folder, f"store{count}")
            made_up_store(store, count, options.dimension, rows_per_part=4096, dtype="float16", terms=1)
            for kind, mebibytes in peaks.items():
                index = ["index", "--store", str(store), "--output", f"{store}.{kind}", "--dense", kind, "--quiet"]
                mebibytes.append(measured([sys.executable, "-m", "diffretriever_pyserini", *index]))
                print(f"{count:,} passages, {kind}: {mebibytes[-1]} MiB", flush=True)
    rows = [[kind, str(few), str(many), f"{many / few:.3f}"] for kind, (few, many) in peaks.items()]
    header = ["--dense", f"{options.few:,} passages, MiB", f"{options.passages:,} passages, MiB", "ratio"]
    table = markdown_table(header, rows)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "index_memory.md").write_text(f"{table}\n\nH = {options.dimension}\n")
    (options.output / "index_memory.json").write_text(json.dumps([header, *rows], indent=1) + "\n")
    print(table)


if __name__ == "__main__":
    main()
