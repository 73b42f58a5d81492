"""Hard negatives for queries with positives: search results without known and likely positives."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import batched
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import overload

import numpy as np

from ...corpora.corpus import Corpus, Passage, write_corpus
from ...errors import InputError
from ...files.atomic import write_json
from ...files.folders import whole_folder
from ...files.outputs import refuse_inputs
from ..data import rows
from ..data.documents import generated_rows, read_documents
from ..data.examples import RowFiles
from ..data.sources import row_files
from ..data.store import PassageStore, text_digest
from .candidates import Vectors, bm25_candidates, model_candidates
from .options import MineOptions

MARKER = "mined.json"
_CACHED = 1024  # queries of several rows whose positives are not looked up again


def mine(options: MineOptions, say: Callable[[str], None] = print) -> dict[str, int]:
    """Write the rows with their negatives to ``options.output``; returns the counts that mined.json holds.

    Rows without a remaining candidate are written without negatives and counted. Raises DiffRetrieverError.
    """
    inputs = {"--pairs": options.pairs, "--documents": options.documents, "--corpus": options.corpus}
    refuse_inputs({"--output": options.output}, inputs)
    counts: Counter[str] = Counter()
    with whole_folder(options.output, MARKER) as folder, TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        store = PassageStore(work / "passages.sqlite", _passages(options, work))
        (folder / "corpus").mkdir()
        write_corpus(folder / "corpus" / "corpus.jsonl", store)
        pairs = _pairs(options, store, work, folder)
        say(f"{len(pairs)} queries, {len(store)} passages")
        miner = _Miner(options, store, _vectors(options, store, work), counts)
        miner.write(pairs, work, folder / "train.jsonl")
        store.close()
        counts.update({"queries": len(pairs), "passages": len(store), "bad_rows": pairs.bad.count})
        settings = {name: str(value) for name, value in asdict(options).items()}
        write_json(folder / MARKER, {"counts": counts, "settings": settings})
    say(_summary(counts))
    if pairs.bad.count:
        say(f"{pairs.bad.count} bad rows left out; they are listed in {options.output / 'bad-rows.txt'}")
    return dict(counts)


def _passages(options: MineOptions, work: Path) -> Iterator[Passage]:
    if options.documents is not None:
        return read_documents(options.documents, options.words)
    if options.corpus is not None:
        return Corpus(options.corpus).passages()
    return _passages_of_pairs(options, work)


def _passages_of_pairs(options: MineOptions, work: Path) -> Iterator[Passage]:
    """Every passage of the pairs once; one without an id gets a number. Ids and texts already read are kept on disk."""
    files = row_files(options.pairs, work, options.split)
    pairs = RowFiles(files, False, options.on_error, work / "bad-while-collecting.txt")
    seen = _Seen(work / "seen.sqlite")
    number = 0
    for i in range(len(pairs)):
        row = pairs[i]
        for one in (*row.positives, *row.negatives):
            if seen.add("texts", text_digest(one.contents)):
                docid = one.docid if not one.docid.split()[1:] else ""
                while not docid or not seen.add("ids", docid):
                    docid, number = f"p{number}", number + 1
                yield Passage(docid, one.title, one.text)
    seen.close()


class _Seen:
    """Sets of ids and of texts in an SQLite file."""

    def __init__(self, path: Path):
        self._table = sqlite3.connect(path)
        self._table.execute("PRAGMA synchronous = OFF")
        for name in ("texts", "ids"):
            self._table.execute(f"CREATE TABLE {name} (value PRIMARY KEY) WITHOUT ROWID")

    def add(self, name: str, value: str | bytes) -> bool:
        """Whether ``value`` is new to the set."""
        return self._table.execute(f"INSERT OR IGNORE INTO {name} VALUES (?)", (value,)).rowcount == 1

    def close(self) -> None:
        self._table.close()


class _Queries(Sequence[str]):
    """The queries of ``rows`` by number, read from disk on access."""

    def __init__(self, rows: RowFiles):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._rows[index].query


def _pairs(options: MineOptions, store: PassageStore, work: Path, folder: Path) -> RowFiles:
    if options.documents is None:
        files = row_files(options.pairs, work, options.split)
    else:
        path = work / "generated.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number, passage in enumerate(store):
                for row in generated_rows(passage, np.random.default_rng([options.seed, number])):
                    file.write(json.dumps(rows.to_record(row)) + "\n")
        files = [path]
    return RowFiles(files, False, options.on_error, folder / "bad-rows.txt")


@dataclass(frozen=True)
class _Miner:
    """Choose the negatives of every row; ``counts`` holds what was left out and why."""

    options: MineOptions
    store: PassageStore
    vectors: Vectors | None
    counts: Counter[str]

    def write(self, pairs: RowFiles, work: Path, path: Path) -> None:
        """Write each of ``pairs`` with its negatives."""
        queries, depth, vectors = _Queries(pairs), self.options.depth, self.vectors
        known = _KnownPositives(self.store, pairs)
        if self.options.method == "model":
            assert vectors is not None
            candidates = model_candidates(vectors, queries, depth)
        else:
            candidates = bm25_candidates(self.store, queries, work / "bm25", depth, self.options.threads)
        with path.open("w", encoding="utf-8") as file:
            for group in batched(_every_row(candidates, len(queries)), 256):
                if vectors is not None:
                    vectors.queries([queries[i] for i, _ in group])  # encodes them together and caches each
                for i, numbers in group:
                    row = self.mined(pairs[i], numbers, known(i))
                    file.write(json.dumps(rows.to_record(row)) + "\n")

    def mined(self, row: rows.Row, candidates: Sequence[int], known: set[int]) -> rows.Row:
        """``row`` with the best candidates of distinct texts that are neither ``known`` nor likely positives."""
        others = [number for number in candidates if number not in known]
        self.counts["known positives among candidates"] += len(candidates) - len(others)
        negatives = self.store.distinct(others)
        self.counts["copies left out"] += len(others) - len(negatives)
        negatives = negatives[self.options.skip :]
        vectors = self.vectors
        if vectors is not None and negatives:
            query = vectors.queries([row.query])[0]
            best = vectors.scores(query, sorted(known)).max() if known else _best_positive(vectors, query, row)
            limit = best - (1 - self.options.max_ratio) * abs(best)
            scores = vectors.scores(query, negatives)
            below = [number for number, score in zip(negatives, scores, strict=True) if score <= limit]
            self.counts["likely positives left out"] += len(negatives) - len(below)
            negatives = below
        negatives = negatives[: self.options.negatives]
        self.counts["negatives"] += len(negatives)
        self.counts["queries without negatives"] += int(not negatives)
        self.counts["queries with too few"] += int(0 < len(negatives) < self.options.negatives)
        passages = (self.store[number] for number in negatives)
        return replace(row, negatives=tuple(rows.scored(one) for one in passages))


def _vectors(options: MineOptions, store: PassageStore, work: Path) -> Vectors | None:
    if not options.encoder:
        return None
    from ...model.retriever import DiffRetriever

    return Vectors(DiffRetriever.from_pretrained(options.encoder, options.device), store, work / "vectors.npy")


def _every_row(candidates: Iterable[tuple[int, list[int]]], count: int) -> Iterator[tuple[int, list[int]]]:
    """``candidates`` with an empty list for each row below ``count`` that has none."""
    expected = 0
    for row, numbers in candidates:
        if row < expected:
            raise InputError(f"candidates came out of order: query {row} after {expected - 1}.")
        yield from ((missing, []) for missing in range(expected, row))
        yield row, numbers
        expected = row + 1
    yield from ((missing, []) for missing in range(expected, count))


def positive_numbers(store: PassageStore, row: rows.Row) -> set[int]:
    """Numbers of a row's positives in the store: by id, and every passage with the same text, titled or not."""
    numbers: set[int] = set()
    for passage in row.positives:
        number = store.number(passage.docid) if passage.docid else None
        if number is not None:
            numbers.add(number)
            numbers.update(store.same_text(store[number].contents))
        for text in {passage.contents, passage.text} - {""}:
            numbers.update(store.same_text(text))
    return numbers


class _KnownPositives:
    """Numbers of the positives of a row's query, from all rows of ``pairs`` with that query."""

    def __init__(self, store: PassageStore, pairs: RowFiles):
        self._store, self._pairs = store, pairs
        self._cached = lru_cache(_CACHED)(self._all)

    def __call__(self, i: int) -> set[int]:
        same = self._pairs.same_query(i)
        return self._cached(int(same[0])) if len(same) > 1 else self._all(i)

    def _all(self, i: int) -> set[int]:
        same = self._pairs.same_query(i)
        return set().union(*(positive_numbers(self._store, self._pairs[int(j)]) for j in same))


def _best_positive(vectors: Vectors, query: np.ndarray, row: rows.Row) -> float:
    """The score of the row's best positive, encoded here since the store does not hold it."""
    texts = [passage.contents for passage in row.positives]
    return float((vectors.model.encode(texts, "passage").pooled @ query).max())


def _summary(counts: Counter[str]) -> str:
    mean = counts["negatives"] / max(counts["queries"], 1)
    parts = [
        f"{counts[name]} {name}"
        for name in sorted(counts)
        if name.startswith(("known", "likely", "copies", "queries with"))
    ]
    return f"{counts['negatives']} negatives ({mean:.1f} per query); " + ", ".join(parts)
