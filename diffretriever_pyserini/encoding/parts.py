"""Prepared rows, gathered into whole parts without ids that were seen before."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..corpora.corpus import Corpus, parse_row
from ..errors import InputError
from ..model.tokenization import Prepared
from ..store.docids import Hashes, SeenIds, hashes
from ..store.part import PartRows
from .prefetch import ReadyRows


@dataclass
class ReadyPart(PartRows):
    """A part with its prepared texts and, for error messages, the file and line of each passage."""

    locations: list[str] = field(default_factory=list)
    pieces: list[Prepared] = field(default_factory=list)

    def add(self, ready: ReadyRows) -> None:
        """Append prepared rows."""
        self.rows += len(ready.docids) + len(ready.skipped)
        self.docids += ready.docids
        self.locations += ready.locations
        self.skipped += ready.skipped
        self.pieces.append(ready.prepared)

    def prepared(self) -> Prepared:
        """Return all prepared texts."""
        return Prepared.joined(self.pieces)

    def keep(self, indices: list[int]) -> None:
        """Drop all passages but those at ``indices``."""
        self.pieces = [self.prepared().take(indices)]
        self.docids, self.locations = [self.docids[i] for i in indices], [self.locations[i] for i in indices]


def gathered_parts(ready: Iterator[tuple[int, ReadyRows]]) -> Iterator[ReadyPart]:
    """Yield whole parts, given (part number, chunk of its rows) in order."""
    part: ReadyPart | None = None
    for number, rows in ready:
        if part is not None and part.number != number:
            yield part
            part = None
        part = part or ReadyPart(number)
        part.add(rows)
    if part is not None:
        yield part


class UniqueIds:
    """Compares the ids of each part with those of the earlier parts that this run reads (see store/docids.py).

    A passage whose id was seen before is an InputError, or with ``skip`` a skipped row. Parts that exist already count
    like those that are encoded now, so the bytes do not depend on where a run was interrupted.
    """

    def __init__(self, corpus: Corpus, skip: bool):
        self._corpus, self._skip = corpus, skip
        self._seen = SeenIds()
        self._existing: deque[tuple[int, Hashes]] = deque()

    def add_existing(self, number: int, docids: list[str]) -> None:
        """Add the ids of part ``number``, which exists already; :meth:`apply` may still get earlier parts."""
        self._existing.append((number, hashes(docids)))

    def apply(self, part: ReadyPart) -> None:
        """Drop the passages of ``part`` whose ids were seen before.

        Raises
        ------
        InputError
            For the first of them, naming both rows, unless bad rows are skipped.
        """
        while self._existing and self._existing[0][0] < part.number:
            self._seen.add(self._existing.popleft()[1])
        new = hashes(part.docids)
        earlier = self._seen.known(new)
        first: dict[str, str] = {}
        keep = []
        for i, (docid, where) in enumerate(zip(part.docids, part.locations, strict=True)):
            if not earlier[i] and docid not in first:
                first[docid] = where
                keep.append(i)
                continue
            if not self._skip:
                before = first.get(docid) or next(rows_of(self._corpus, docid), "an earlier part")
                raise repeated_id_error(where, docid, before)
            before = first.get(docid) or "an earlier part of the corpus"  # not which part: that depends on the shards
            part.skipped.append((where, f"{where}: passage id {docid!r} was seen before in {before}."))
        if len(keep) < len(part.docids):
            part.keep(keep)
        self._seen.add(new[:, keep])


def rows_of(corpus: Corpus, docid: str) -> Iterator[str]:
    """Yield the file and line of each passage ``docid``, in order, by reading the corpus again."""
    for row in corpus.rows():
        with contextlib.suppress(InputError):
            if parse_row(row).docid == docid:
                yield row.where


def repeated_id_error(where: str, docid: str, before: str) -> InputError:
    """Return the error for an id that occurs twice."""
    return InputError(
        f"{where}: passage id {docid!r} was seen before in {before}; ids must be unique "
        "(--on-error skip keeps the first passage of each id and lists the others)."
    )
