"""Candidates for hard negatives: by BM25 through Pyserini, or by the pooled vectors of a DiffRetriever model."""

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
# Words as Lucene's tokenizer splits them, or parts: Chinese and Japanese characters alone, at most 255 UTF-16 units.
_CHARACTER = "\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CHARACTER}]|(?:(?![{_CHARACTER}])\w){{1,127}}")
_SEARCHED = 50_000  # queries per BM25 command: Pyserini holds them and their hits in memory


def bm25_candidates(
    store: PassageStore, queries: Sequence[str], work: Path, depth: int, threads: int = 2
) -> Iterator[tuple[int, list[int]]]:
    """(query's row, numbers of its best ``depth`` passages) by Pyserini's BM25, from an index built in ``work``.

    Queries are read and searched in batches of bounded size. Those without a hit are missing from the output. A query
    with more words than Lucene accepts is shortened. Raises StepError when a command fails, with its last lines.
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
    for rows in batched(range(len(queries)), _SEARCHED):
        # Ids of equal width keep our order however Pyserini sorts them.
        topics = {f"{i:09d}": " ".join(queries[i].split()) for i in rows}
        write_topics(work / "topics.json", topics | shortened(topics, store))
        (work / "run.txt").unlink(missing_ok=True)
        title = f"BM25 search, queries {rows[0] + 1:,} to {rows[-1] + 1:,} of {len(queries):,}"
        # A run is empty where no query has a hit, so the file's size does not show whether the command succeeded.
        run_step(Step(title, search.split(), "topics.json"), work, work / "search.log", keeps=False)
        lines = (line.split() for _, line in read_lines(work / "run.txt"))
        for qid, hits in groupby(lines, key=lambda parts: parts[0]):
            numbers = [store.number(parts[2]) for parts in hits]
            yield int(qid), [number for number in numbers if number is not None]


def shortened(topics: Mapping[str, str], store: PassageStore) -> dict[str, str]:
    """The ``topics`` with more words than Lucene accepts (1,024), cut to the words of highest weight, in their order.

    A word's weight is its frequency in the query times its inverse document frequency in ``store``.
    """
    words = {qid: _WORD.findall(text.lower()) for qid, text in topics.items() if len(text) > LUCENE_CLAUSES}
    long = {qid: Counter(terms) for qid, terms in words.items() if len(set(terms)) > LUCENE_CLAUSES}
    if not long:
        return {}
    vocabulary = set[str]().union(*long.values())
    frequency = Counter[str]()
    for passage in store:
        frequency.update(vocabulary.intersection(_WORD.findall(passage.contents.lower())))
    idf = {word: math.log1p((len(store) - count + 0.5) / (count + 0.5)) for word, count in frequency.items()}
    shorter = {}
    for qid, counts in long.items():
        best = sorted(counts, key=lambda word: (-counts[word] * idf.get(word, 0.0), word))[:LUCENE_CLAUSES]
        chosen = set(best)
        shorter[qid] = " ".join(word for word in words[qid] if word in chosen)
    return shorter


class Vectors:
    """Pooled vectors of every passage of a store in a file, float32 [N, H]."""

    def __init__(self, model: DiffRetriever, store: PassageStore, path: Path, batch_size: int = 32):
        from tqdm.auto import tqdm

        self.model = model
        self._batch_size = batch_size
        shape = (len(store), model.dimension)
        self._rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        start = 0
        with tqdm(total=len(store), desc="encoding passages", disable=None) as bar:
            for batch in batched(store, 16 * batch_size):
                texts = [passage.contents for passage in batch]
                self._rows[start : start + len(batch)] = model.encode(texts, "passage", batch_size=batch_size).pooled
                start += len(batch)
                bar.update(len(batch))

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Pooled vectors of queries, float32 [N, H]; those of the last few thousand are cached."""
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
            block_numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
            best = np.concatenate([best, queries @ block.T], axis=1)
            numbers = np.concatenate([numbers, block_numbers], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :depth]
            best, numbers = np.take_along_axis(best, order, 1), np.take_along_axis(numbers, order, 1)
        return numbers


def model_candidates(vectors: Vectors, queries: Sequence[str], depth: int) -> Iterator[tuple[int, list[int]]]:
    """(query's row, numbers of its best ``depth`` passages) by the model's pooled vectors."""
    from tqdm.auto import tqdm

    with tqdm(total=len(queries), desc="searching", disable=None) as bar:
        for rows in batched(range(len(queries)), _QUERIES):
            nearest = vectors.nearest(vectors.queries([queries[i] for i in rows]), depth)
            yield from zip(rows, nearest.tolist(), strict=True)
            bar.update(len(rows))
