"""Hard negatives for queries and their positives: candidates, without those that are likely positives themselves."""

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
from ...files.atomic import whole_folder, write_json
from ...files.outputs import refuse_inputs
from ..data import rows
from ..data.documents import made_rows, read_documents
from ..data.examples import RowFiles
from ..data.sources import row_files
from ..data.store import PassageStore, text_digest
from .candidates import Vectors, bm25_candidates, model_candidates
from .options import MineOptions

MARKER = "mined.json"
_REMEMBERED = 1024  # queries of several rows whose positives are not looked up again


def mine(options: MineOptions, say: Callable[[str], None] = print) -> dict[str, int]:
    """Write the rows with their negatives to ``options.output``; returns the counts that mined.json holds.

    Rows for which no candidate is left stay in, without negatives, and are counted. Raises DiffRetrieverError.
    """
    read = {"--pairs": options.pairs, "--documents": options.documents, "--corpus": options.corpus}
    refuse_inputs({"--output": options.output}, read)
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
        say(f"{pairs.bad.count} bad rows left out, listed in {options.output / 'bad-rows.txt'}")
    return dict(counts)


def _passages(options: MineOptions, work: Path) -> Iterator[Passage]:
    if options.documents is not None:
        return read_documents(options.documents, options.words)
    if options.corpus is not None:
        return Corpus(options.corpus).passages()
    return _passages_of_pairs(options, work)


def _passages_of_pairs(options: MineOptions, work: Path) -> Iterator[Passage]:
    """Every passage of the pairs once; one without an id gets a number. What was seen is kept on disk."""
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
    """The queries of ``rows`` by number, read from disk when asked for."""

    def __init__(self, rows: RowFiles):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._rows[place].query


def _pairs(options: MineOptions, store: PassageStore, work: Path, folder: Path) -> RowFiles:
    if options.documents is None:
        files = row_files(options.pairs, work, options.split)
    else:
        made = work / "made.jsonl"
        with made.open("w", encoding="utf-8") as file:
            for number, passage in enumerate(store):
                for row in made_rows(passage, np.random.default_rng([options.seed, number])):
                    file.write(json.dumps(rows.to_record(row)) + "\n")
        files = [made]
    return RowFiles(files, False, options.on_error, folder / "bad-rows.txt")


@dataclass(frozen=True)
class _Miner:
    """What every row's negatives are chosen with; ``counts`` says at the end what was left out."""

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
            found = model_candidates(vectors, queries, depth)
        else:
            found = bm25_candidates(self.store, queries, work / "bm25", depth, self.options.threads)
        with path.open("w", encoding="utf-8") as file:
            for group in batched(_every_place(found, len(queries)), 256):
                if vectors is not None:
                    vectors.queries([queries[place] for place, _ in group])  # together; each is then remembered
                for place, numbers in group:
                    row = self.mined(pairs[place], numbers, known(place))
                    file.write(json.dumps(rows.to_record(row)) + "\n")

    def mined(self, row: rows.Row, candidates: Sequence[int], known: set[int]) -> rows.Row:
        """``row`` with the best candidates, of each text one, that are neither ``known`` positives nor likely ones."""
        others = [number for number in candidates if number not in known]
        self.counts["known positives among candidates"] += len(candidates) - len(others)
        kept = self.store.distinct(others)
        self.counts["copies left out"] += len(others) - len(kept)
        kept = kept[self.options.skip :]
        vectors = self.vectors
        if vectors is not None and kept:
            query = vectors.queries([row.query])[0]
            best = vectors.scores(query, sorted(known)).max() if known else _own_score(vectors, query, row)
            limit = best - (1 - self.options.max_ratio) * abs(best)
            scores = vectors.scores(query, kept)
            below = [number for number, score in zip(kept, scores, strict=True) if score <= limit]
            self.counts["likely positives left out"] += len(kept) - len(below)
            kept = below
        kept = kept[: self.options.negatives]
        self.counts["negatives"] += len(kept)
        self.counts["queries without negatives"] += not kept
        self.counts["queries with too few"] += 0 < len(kept) < self.options.negatives
        passages = (self.store[number] for number in kept)
        return replace(row, negatives=tuple(rows.scored(one) for one in passages))


def _vectors(options: MineOptions, store: PassageStore, work: Path) -> Vectors | None:
    if not options.encoder:
        return None
    from ...model.retriever import DiffRetriever

    return Vectors(DiffRetriever.from_pretrained(options.encoder, options.device), store, work / "vectors.npy")


def _every_place(found: Iterable[tuple[int, list[int]]], count: int) -> Iterator[tuple[int, list[int]]]:
    """``found`` with an empty list for each place below ``count`` that does not come up."""
    expected = 0
    for place, numbers in found:
        if place < expected:
            raise InputError(f"candidates came out of order: query {place} after {expected - 1}.")
        yield from ((missed, []) for missed in range(expected, place))
        yield place, numbers
        expected = place + 1
    yield from ((missed, []) for missed in range(expected, count))


def positive_numbers(store: PassageStore, row: rows.Row) -> set[int]:
    """Numbers of a row's positives in the store: by id, and every passage with the same text, titled or not."""
    found: set[int] = set()
    for one in row.positives:
        number = store.number(one.docid) if one.docid else None
        if number is not None:
            found.add(number)
            found.update(store.same_text(store[number].contents))
        for text in {one.contents, one.text} - {""}:
            found.update(store.same_text(text))
    return found


class _KnownPositives:
    """Numbers of the positives that a row's query has, on whatever row of ``pairs`` they are named."""

    def __init__(self, store: PassageStore, pairs: RowFiles):
        self._store, self._pairs = store, pairs
        self._of_several = lru_cache(_REMEMBERED)(self._all)

    def __call__(self, i: int) -> set[int]:
        asking = self._pairs.same_query(i)
        return self._of_several(int(asking[0])) if len(asking) > 1 else self._all(i)

    def _all(self, i: int) -> set[int]:
        asking = self._pairs.same_query(i)
        return set().union(*(positive_numbers(self._store, self._pairs[int(one)]) for one in asking))


def _own_score(vectors: Vectors, query: np.ndarray, row: rows.Row) -> float:
    texts = [one.contents for one in row.positives]
    return float((vectors.model.encode(texts, "passage").pooled @ query).max())


def _summary(counts: Counter[str]) -> str:
    mean = counts["negatives"] / max(counts["queries"], 1)
    parts = [
        f"{counts[name]} {name}"
        for name in sorted(counts)
        if name.startswith(("known", "likely", "copies", "queries with"))
    ]
    return f"{counts['negatives']} negatives ({mean:.1f} a query); " + ", ".join(parts)
