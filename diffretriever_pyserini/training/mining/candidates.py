"""Where hard negatives come from: BM25 through Pyserini, or the vectors of a model of ours."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched, groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...corpora.corpus import write_corpus
from ...corpora.topics import write_topics
from ...files.jsonl import read_lines
from ...model.lexical import LUCENE_CLAUSES
from ...runtime.commands import Step, run_step
from ..data.store import PassageStore

if TYPE_CHECKING:
    from ...model.retriever import DiffRetriever

_BLOCK = 1 << 14  # passages scored at a time
_QUERIES = 256
# Words as Lucene's tokenizer has them, or parts of them: Chinese and Japanese signs alone, at most 255 UTF-16 units.
_SIGN = "\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_SIGN}]|(?:(?![{_SIGN}])\w){{1,127}}")
_SEARCHED = 50_000  # queries a BM25 command: Pyserini holds them and their hits in memory


def bm25_candidates(
    store: PassageStore, queries: Sequence[str], work: Path, depth: int, threads: int = 2
) -> Iterator[tuple[int, list[int]]]:
    """(query's place, numbers of its best ``depth`` passages) by Pyserini's BM25, from an index made in ``work``.

    Queries are read and searched a bounded number at a time. Those without any hit do not come up. Of a query of more
    words than Lucene takes the strongest are searched. Raises StepError when a command fails, with its last lines.
    """
    (work / "corpus").mkdir(parents=True)
    write_corpus(work / "corpus" / "corpus.jsonl", store)
    index = (
        "pyserini.index.lucene --collection JsonCollection --input corpus --index index "
        f"--generator DefaultLuceneDocumentGenerator --threads {threads}"
    )
    search = (
        "pyserini.search.lucene --index index --topics topics.json --output run.txt --bm25 "
        f"--hits {depth} --threads {threads} --batch-size 64"
    )
    run_step(Step("BM25 index", index.split(), "index"), work, work / "index.log", keeps=False)
    for places in batched(range(len(queries)), _SEARCHED):
        # Digits of one width: however Pyserini sorts query ids, the run comes in our order.
        topics = {f"{i:09d}": " ".join(queries[i].split()) for i in places}
        write_topics(work / "topics.json", topics | shortened(topics, store))
        (work / "run.txt").unlink(missing_ok=True)
        title = f"BM25 search, queries {places[0] + 1:,} to {places[-1] + 1:,} of {len(queries):,}"
        # A run without a line is right where no query has a hit, so its size is not what tells success.
        run_step(Step(title, search.split(), "topics.json"), work, work / "search.log", keeps=False)
        lines = (line.split() for _, line in read_lines(work / "run.txt"))
        for qid, hits in groupby(lines, key=lambda parts: parts[0]):
            numbers = [store.number(parts[2]) for parts in hits]
            yield int(qid), [number for number in numbers if number is not None]


def shortened(topics: Mapping[str, str], store: PassageStore) -> dict[str, str]:
    """Of ``topics`` with more words than Lucene takes in a query (1,024), the strongest words, in their order.

    Strong is what counts in BM25: how often the query has a word, and in how few passages of ``store`` it is.
    """
    words = {qid: _WORD.findall(text.lower()) for qid, text in topics.items() if len(text) > LUCENE_CLAUSES}
    long = {qid: Counter(found) for qid, found in words.items() if len(set(found)) > LUCENE_CLAUSES}
    if not long:
        return {}
    wanted = set[str]().union(*long.values())
    passages = Counter[str]()
    for passage in store:
        passages.update(wanted.intersection(_WORD.findall(passage.contents.lower())))
    rarity = {word: math.log1p((len(store) - count + 0.5) / (count + 0.5)) for word, count in passages.items()}
    kept = {}
    for qid, counts in long.items():
        best = sorted(counts, key=lambda word: (-counts[word] * rarity.get(word, 0.0), word))[:LUCENE_CLAUSES]
        chosen = set(best)
        kept[qid] = " ".join(word for word in words[qid] if word in chosen)
    return kept


class Vectors:
    """Pooled vectors of every passage of a store in a file, float32 [N, H]."""

    def __init__(self, model: DiffRetriever, store: PassageStore, path: Path, batch_size: int = 32):
        from tqdm import tqdm

        self.model = model
        self._batch_size = batch_size
        shape = (len(store), model.dimension)
        self._rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        done = 0
        with tqdm(total=len(store), desc="encoding passages", disable=None) as bar:
            for batch in batched(store, 16 * batch_size):
                texts = [one.contents for one in batch]
                self._rows[done : done + len(batch)] = model.encode(texts, "passage", batch_size=batch_size).pooled
                done += len(batch)
                bar.update(len(batch))

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Pooled vectors of queries, float32 [N, H]; those of the last few thousand are remembered."""
        return np.stack([one.vector for one in self.model.encode_queries_cached(texts, self._batch_size)])

    def scores(self, query: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
        """Dense scores of the passages ``numbers`` for one query vector [H]."""
        return self._rows[list(numbers)] @ query

    def nearest(self, queries: np.ndarray, depth: int) -> np.ndarray:
        """Numbers of the ``depth`` best passages of each query vector [N, H], best first: int64 [N, depth]."""
        depth = min(depth, len(self._rows))
        best = np.full((len(queries), 0), 0.0, dtype=np.float32)
        numbers = np.zeros((len(queries), 0), dtype=np.int64)
        for start in range(0, len(self._rows), _BLOCK):
            block = np.asarray(self._rows[start : start + _BLOCK])
            found = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
            best = np.concatenate([best, queries @ block.T], axis=1)
            numbers = np.concatenate([numbers, found], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :depth]
            best, numbers = np.take_along_axis(best, order, 1), np.take_along_axis(numbers, order, 1)
        return numbers


def model_candidates(vectors: Vectors, queries: Sequence[str], depth: int) -> Iterator[tuple[int, list[int]]]:
    """(query's place, numbers of its best ``depth`` passages) by the model's pooled vectors."""
    from tqdm import tqdm

    with tqdm(total=len(queries), desc="searching", disable=None) as bar:
        for places in batched(range(len(queries)), _QUERIES):
            nearest = vectors.nearest(vectors.queries([queries[i] for i in places]), depth)
            yield from zip(places, nearest.tolist(), strict=True)
            bar.update(len(places))
