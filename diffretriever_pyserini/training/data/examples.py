"""Training rows by number, from disk: where each row starts is known, the rows themselves are read when drawn.

Every line is parsed once before training, so that a bad row is reported with file and line before the first step and
not in the third hour. What stays in memory is 24 bytes a row: its place, a digest of its query, its rank by digest.
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

_SHOWN = 5
_REMEMBERED = 1024  # queries of several rows whose positives are not read again


@dataclass
class BadRows:
    """Rows that cannot be used: how many, and in ``report`` one line of reason each, with file and line."""

    report: Path | None
    count: int = 0
    first: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One sentence for a person; empty if all rows are good."""
        if not self.count:
            return ""
        return f"{self.count} bad rows left out, listed in {self.report}; the first: " + " | ".join(self.first)


class RowFiles:
    """The rows of several line files, by number.

    Parameters
    ----------
    paths : .jsonl and .tsv files, one row a line (see rows.py).
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
        found = [self._index(path, need_negatives, on_error) for path in self.paths]
        self._starts = [np.frombuffer(starts, dtype=np.int64) for starts in found]
        self._bounds = np.cumsum([0, *(len(starts) for starts in self._starts)])
        self._open: dict[int, BinaryIO] = {}
        self._pid = os.getpid()
        if not len(self):
            raise InputError(f"no usable training row in {', '.join(map(str, self.paths))}. {self.bad.summary()}")

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, i: int) -> Row:
        which = int(np.searchsorted(self._bounds, i, side="right")) - 1
        file = self._file(which)
        file.seek(int(self._starts[which][i - self._bounds[which]]))
        path = self.paths[which]
        return parse_line(file.readline().decode("utf-8-sig"), str(path), path.suffix == ".tsv")

    def _file(self, which: int) -> BinaryIO:
        if self._pid != os.getpid():  # a loader's worker must not share the place in the file with its parent
            self._open, self._pid = {}, os.getpid()
        if which not in self._open:
            self._open[which] = self.paths[which].open("rb")
        return self._open[which]

    def _index(self, path: Path, need_negatives: bool, on_error: str) -> array[int]:
        starts = array("q")
        for number, start, line in _lines(path):
            where = f"{path}, line {number}"
            try:
                row = parse_line(_text(line, where), where, path.suffix == ".tsv")
                if need_negatives and not row.negatives:
                    raise InputError(
                        f"{where}: no negative passage; mine some (diffretriever mine-negatives) or set negatives: 0."
                    )
            except InputError as error:
                if on_error == "stop":
                    raise InputError(f"{error} (on_error: skip leaves such rows out and lists them)") from error
                self._report(str(error))
                continue
            starts.append(start)
            self._digests.append(text_key(row.query))
        return starts

    def _report(self, reason: str) -> None:
        self.bad.count += 1
        if len(self.bad.first) < _SHOWN:
            self.bad.first.append(reason)
        if self.bad.report is not None:
            with self.bad.report.open("a", encoding="utf-8") as file:
                file.write(reason + "\n")

    def asking(self, queries: Iterable[str]) -> np.ndarray:
        """Numbers of the rows whose query is one of ``queries``; case and white space do not count."""
        wanted = np.array([text_key(query) for query in queries], dtype=np.int64)
        return np.flatnonzero(np.isin(self.queries(), wanted))

    def queries(self) -> np.ndarray:
        """:func:`~.store.text_key` of every row's query, int64 [rows]."""
        return np.frombuffer(self._digests, dtype=np.int64)

    def same_query(self, i: int) -> np.ndarray:
        """Numbers of the rows that ask the query of row ``i``, itself among them, rising."""
        key = self._digests[i]
        start, stop = (np.searchsorted(self.queries(), key, side, self._by_query) for side in ("left", "right"))
        return self._by_query[start:stop]

    @cached_property
    def _by_query(self) -> np.ndarray:
        return np.argsort(self.queries(), kind="stable")


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, its first byte's place, the line) of every line that is not blank; a bar on a terminal."""
    from tqdm import tqdm

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
    spread over other devices, sees the same examples. A row with fewer negatives gives some of them twice. An example
    names all positives of its query, on whatever row they are.
    """

    def __init__(self, rows: RowFiles, chosen: np.ndarray, negatives: int, seed: int):
        self.rows, self.chosen, self.negatives, self.seed = rows, chosen, negatives, seed
        self.epoch = 0
        self._remembered: dict[int, tuple[int, ...]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Draw as for ``epoch``; called by the data loader."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.chosen)

    def asked(self, queries: Iterable[str]) -> int:
        """How many of the rows ask one of ``queries``."""
        return len(np.intersect1d(self.rows.asking(queries), self.chosen, assume_unique=True))

    def __getitem__(self, i: int) -> Example:
        number = int(self.chosen[i])
        row = self.rows[number]
        example = draw(row, self.negatives, np.random.default_rng([self.seed, self.epoch, number]))
        asking = self.rows.same_query(number)
        return replace(example, positives=self._known(int(asking[0])) if len(asking) > 1 else _keys(row))

    def _known(self, first: int) -> tuple[int, ...]:
        """Keys of all positives of the query of row ``first``, the first of several rows that ask it."""
        if first not in self._remembered:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            keys = {key for number in self.rows.same_query(first) for key in _keys(self.rows[int(number)])}
            self._remembered[first] = tuple(keys)
        return self._remembered[first]


def _keys(row: Row) -> tuple[int, ...]:
    return tuple(text_key(one.contents) for one in row.positives)


def draw(row: Row, negatives: int, rng: np.random.Generator) -> Example:
    """One positive and ``negatives`` negatives of ``row``; the teacher's scores if all of them have one."""
    picked: list[ScoredPassage] = [row.positives[int(rng.integers(len(row.positives)))]]
    if negatives:
        places = list(rng.permutation(len(row.negatives))[:negatives])
        if len(places) < negatives:
            places += list(rng.integers(len(row.negatives), size=negatives - len(places)))
        picked += [row.negatives[int(place)] for place in places]
    scores = tuple(one.score for one in picked if one.score is not None)
    return Example(
        row.query,
        tuple(one.contents for one in picked),
        scores if len(scores) == len(picked) else None,
        seed=int(rng.integers(1 << 62)),
    )


def split_rows(rows: RowFiles, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training rows and of ``held_out`` rows kept for development, drawn by ``seed``, both rising.

    A query's rows stay together: those of a drawn query that are more than still fit are passed over, so that fewer
    rows may be kept. Raises InputError where no row is left for training, or no query fits.
    """
    count, kept, whole = len(rows), list[int](), set[int]()
    if not 0 <= held_out < count:
        raise InputError(f"dev_rows={held_out} must leave at least one of the {count} rows for training.")
    rng = np.random.default_rng(seed)
    drawn = rng.choice(count, held_out, replace=False)
    for i in chain(drawn, _rest(drawn, count, rng)):
        if len(kept) == held_out:
            break
        group = rows.same_query(int(i))
        if int(group[0]) not in whole and len(kept) + len(group) <= held_out:
            whole.add(int(group[0]))
            kept += group.tolist()
    if held_out and not kept:
        raise InputError(f"dev_rows={held_out}: every query has more rows than that, and a query's rows stay together.")
    return np.setdiff1d(np.arange(count), kept, assume_unique=True), np.sort(np.array(kept, dtype=np.int64))


def _rest(drawn: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[int]:
    """The numbers below ``count`` that are not ``drawn``, in random order; made when the first is asked for."""
    yield from rng.permutation(np.setdiff1d(np.arange(count), drawn)).tolist()
