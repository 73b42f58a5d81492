"""Training rows by number, from disk: the offset of each row is kept, and a row is read when it is drawn.

Every line is parsed once before training, so that a bad row is reported with file and line before the first step.
Memory holds 24 bytes per row: its offset, a digest of its query, and its rank by digest.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import InputError
from .batches import Example
from .rows import Row, ScoredPassage, parse_line
from .store import text_key

_LISTED = 5
_CACHED = 1024  # queries of several rows whose positives are not read again


@dataclass
class BadRows:
    """Rows that cannot be used: how many, and one reason per line in ``report``, with file and line."""

    report: Path | None
    count: int = 0
    first: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One sentence for the user; empty if all rows are good."""
        if not self.count:
            return ""
        return f"{self.count} bad rows left out, listed in {self.report}; the first: " + " | ".join(self.first)


class RowFiles:
    """The rows of several line files, by number.

    Parameters
    ----------
    paths : .jsonl and .tsv files, one row per line (see rows.py).
    need_negatives : a row without any negative is a bad row.
    on_error : ``stop`` raises at the first bad row; ``skip`` leaves it out, lists it in ``report`` and counts it.
    report : file for the reasons; None where another process of the same run writes it.
    """

    def __init__(self, paths: Sequence[Path], need_negatives: bool, on_error: str, report: Path | None):
        if on_error not in ("stop", "skip"):
            raise InputError(f"on_error={on_error!r} is not one of 'stop', 'skip'.")
        self.paths = list(paths)
        self.bad = BadRows(report)
        if report is not None:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.unlink(missing_ok=True)
        self._digests = array("q")
        offsets = [self._index(path, need_negatives, on_error) for path in self.paths]
        self._starts = [np.frombuffer(starts, dtype=np.int64) for starts in offsets]
        self._bounds = np.cumsum([0, *(len(starts) for starts in self._starts)])
        self._open: dict[int, BinaryIO] = {}
        self._pid = os.getpid()
        if not len(self):
            raise InputError(f"no usable training row in {', '.join(map(str, self.paths))}. {self.bad.summary()}")

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, i: int) -> Row:
        number = int(np.searchsorted(self._bounds, i, side="right")) - 1
        file = self._file(number)
        file.seek(int(self._starts[number][i - self._bounds[number]]))
        path = self.paths[number]
        return parse_line(file.readline().decode("utf-8-sig"), str(path), path.suffix == ".tsv")

    def _file(self, number: int) -> BinaryIO:
        if self._pid != os.getpid():  # a loader's worker must not share the file offset with its parent
            self._open, self._pid = {}, os.getpid()
        if number not in self._open:
            self._open[number] = self.paths[number].open("rb")
        return self._open[number]

    def _index(self, path: Path, need_negatives: bool, on_error: str) -> array[int]:
        starts = array("q")
        for number, start, line in _lines(path):
            where = f"{path}, line {number}"
            try:
                row = parse_line(_text(line, where), where, path.suffix == ".tsv")
                if need_negatives and not row.negatives:
                    raise InputError(
                        f"{where}: no negative passage; run diffretriever mine-negatives or set negatives: 0."
                    )
            except InputError as error:
                if on_error == "stop":
                    raise InputError(f"{error} Set on_error: skip to leave such rows out and list them.") from error
                self._report(str(error))
                continue
            starts.append(start)
            self._digests.append(text_key(row.query))
        return starts

    def _report(self, reason: str) -> None:
        self.bad.count += 1
        if len(self.bad.first) < _LISTED:
            self.bad.first.append(reason)
        if self.bad.report is not None:
            with self.bad.report.open("a", encoding="utf-8") as file:
                file.write(reason + "\n")

    def with_queries(self, queries: Iterable[str]) -> np.ndarray:
        """Numbers of the rows whose query is one of ``queries``; case and white space do not count."""
        keys = np.array([text_key(query) for query in queries], dtype=np.int64)
        return np.flatnonzero(np.isin(self.queries(), keys))

    def queries(self) -> np.ndarray:
        """:func:`~.store.text_key` of every row's query, int64 [rows]."""
        return np.frombuffer(self._digests, dtype=np.int64)

    def same_query(self, i: int) -> np.ndarray:
        """Numbers of the rows that have the query of row ``i``, including ``i``, in ascending order."""
        key = self._digests[i]
        start, stop = (np.searchsorted(self.queries(), key, side, self._by_query) for side in ("left", "right"))
        return self._by_query[start:stop]

    @cached_property
    def _by_query(self) -> np.ndarray:
        return np.argsort(self.queries(), kind="stable")


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, byte offset, line) of every line that is not blank; shows a progress bar on a terminal."""
    from tqdm.auto import tqdm

    start = 0
    size = path.stat().st_size
    with path.open("rb") as file, tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, start, line
            start += len(line)
            bar.update(len(line))


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not valid UTF-8 ({error.reason}).") from error


class TrainingRows:
    """A map-style data set of :class:`Example`: one positive and ``negatives`` negatives, drawn anew each epoch.

    What is drawn for a row depends on ``seed``, the epoch and the row's number alone, so a run that is resumed, or
    spread over other devices, sees the same examples. A row with fewer negatives repeats some of them. An example
    names all positives of its query, whichever rows they are in.
    """

    def __init__(self, rows: RowFiles, chosen: np.ndarray, negatives: int, seed: int):
        self.rows, self.chosen, self.negatives, self.seed = rows, chosen, negatives, seed
        self.epoch = 0
        self._cache: dict[int, tuple[int, ...]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Draw the examples of ``epoch``; called at its start."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.chosen)

    def count_with_queries(self, queries: Iterable[str]) -> int:
        """Number of rows that have one of ``queries``."""
        return len(np.intersect1d(self.rows.with_queries(queries), self.chosen, assume_unique=True))

    def __getitem__(self, i: int) -> Example:
        number = int(self.chosen[i])
        row = self.rows[number]
        example = draw(row, self.negatives, np.random.default_rng([self.seed, self.epoch, number]))
        same = self.rows.same_query(number)
        return replace(example, positives=self._known(int(same[0])) if len(same) > 1 else _keys(row))

    def some_positives(self, count: int) -> list[str]:
        """The first positive of up to ``count`` rows, evenly spread."""
        numbers = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64))
        return [self.rows[int(self.chosen[i])].positives[0].contents for i in numbers]

    def _known(self, first: int) -> tuple[int, ...]:
        """Keys of all positives of the query of row ``first``, the first of several rows with that query."""
        if first not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            keys = {key for number in self.rows.same_query(first) for key in _keys(self.rows[int(number)])}
            self._cache[first] = tuple(keys)
        return self._cache[first]


def _keys(row: Row) -> tuple[int, ...]:
    return tuple(text_key(one.contents) for one in row.positives)


def draw(row: Row, negatives: int, rng: np.random.Generator) -> Example:
    """One positive and ``negatives`` negatives of ``row``; the teacher's scores if all of them have one."""
    picked: list[ScoredPassage] = [row.positives[int(rng.integers(len(row.positives)))]]
    if negatives:
        drawn = list(rng.permutation(len(row.negatives))[:negatives])
        if len(drawn) < negatives:
            drawn += list(rng.integers(len(row.negatives), size=negatives - len(drawn)))
        picked += [row.negatives[int(i)] for i in drawn]
    scores = tuple(one.score for one in picked if one.score is not None)
    return Example(
        row.query,
        tuple(one.contents for one in picked),
        scores if len(scores) == len(picked) else None,
        seed=int(rng.integers(1 << 62)),
    )


def split_rows(rows: RowFiles, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training rows and of up to ``held_out`` development rows, drawn by ``seed``, both ascending.

    A query's rows stay together. A drawn query with more rows than still fit is skipped, so fewer rows may be held
    out. Raises InputError where no row is left for training, or no query fits.
    """
    count, development, queries = len(rows), list[int](), set[int]()
    if not 0 <= held_out < count:
        raise InputError(f"dev_rows={held_out} must leave at least one of the {count} rows for training.")
    rng = np.random.default_rng(seed)
    drawn = rng.choice(count, held_out, replace=False)
    for i in chain(drawn, _rest(drawn, count, rng)):
        if len(development) == held_out:
            break
        group = rows.same_query(int(i))
        if int(group[0]) not in queries and len(development) + len(group) <= held_out:
            queries.add(int(group[0]))
            development += group.tolist()
    if held_out and not development:
        raise InputError(f"dev_rows={held_out}: every query has more rows than that, and a query's rows stay together.")
    training = np.setdiff1d(np.arange(count), development, assume_unique=True)
    return training, np.sort(np.array(development, dtype=np.int64))


def _rest(drawn: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[int]:
    """The numbers below ``count`` that are not ``drawn``, in random order; computed when the first is requested."""
    yield from rng.permutation(np.setdiff1d(np.arange(count), drawn)).tolist()
