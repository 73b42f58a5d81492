"""Train ``diffretriever-mini``: MiniLM learns to give K vectors and term weights at K mask positions."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

EXAMPLES = """examples:
  python scripts/train_mini.py --data data --output out/mini          # 40 minutes on 2 cores
  python scripts/train_mini.py --data data --output out/try --steps 60 --scale 0.1     # a quick try
  python scripts/train_mini.py --data data --output out/mini --device cuda             # on a GPU
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train-pairs/ and pretrain-text/")
    parser.add_argument("--output", type=Path, required=True, help="adapter folder to write")
    parser.add_argument("--cache", type=Path, help="folder for tokenised texts (default: OUTPUT/cache)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with its own batch (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process (default: 1)")
    parser.add_argument("--no-bf16", action="store_true", help="float32 throughout (about half as fast)")
    parser.add_argument("--steps", type=int, default=360, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=48, help="pairs per process and step")
    parser.add_argument("--k-query", type=int, default=4, help="masks after a query")
    parser.add_argument("--k-passage", type=int, default=4, help="masks after a passage")
    parser.add_argument("--also-k-passage", type=int, default=16, help="masks after the passages of every fourth step")
    parser.add_argument("--terms", choices=["content", "stems"], default="stems", help="lexical_terms of the model")
    parser.add_argument("--mask-positions", choices=["tail", "follow"], default="tail")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--alpha", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of the LoRA weights")
    parser.add_argument("--head-lr", type=float, default=2e-3)
    parser.add_argument("--bias-lr", type=float, default=5e-3)
    parser.add_argument("--distil", type=float, default=10.0, help="weight of the cosine to the parent's embedding")
    parser.add_argument("--dense", type=float, default=1.0, help="weight of the dense contrast (pooled and MaxSim)")
    parser.add_argument("--lexical", type=float, default=1.0, help="weight of the lexical contrast")
    parser.add_argument("--hybrid", type=float, default=0.5, help="weight of the contrast of the summed scores")
    parser.add_argument("--regress", type=float, default=2.0, help="weight of the regression on BM25-like term weights")
    parser.add_argument("--denoise", type=float, default=0.0, help="weight of predicting masked text tokens")
    parser.add_argument("--soft", type=float, default=0.5, help="share of the teachers in the contrast's targets")
    parser.add_argument("--leaf", type=int, default=12, help="similar passages put into one batch together")
    parser.add_argument("--without", nargs="*", default=[], help="sources left out of training (development only)")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="share of every source that is read")
    parser.add_argument(
        "--develop-every", type=int, default=0, help="steps between development scores (0: only at the end)"
    )
    parser.add_argument("--dev-distractors", type=int, default=500)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    from mini.training import train

    options.output.mkdir(parents=True, exist_ok=True)
    started = time.time()
    train(options)
    print(f"{options.output}: written in {(time.time() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
