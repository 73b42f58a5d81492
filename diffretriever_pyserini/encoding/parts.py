"""Rows that are ready for the model, gathered to whole parts in which no id occurs that was seen before."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..corpora.corpus import Corpus, parse_row
from ..errors import InputError
from ..model.tokenization import Prepared, Ragged
from ..store.docids import Hashes, SeenIds, hashes
from ..store.part import PartRows
from .prefetch import ReadyRows


@dataclass
class ReadyPart(PartRows):
    """A part whose rows are ready for the model: also where each passage is, and the prepared texts."""

    wheres: list[str] = field(default_factory=list)
    pieces: list[Prepared] = field(default_factory=list)

    def add(self, ready: ReadyRows) -> None:
        """Append some rows."""
        self.rows += len(ready.docids) + len(ready.skipped)
        self.docids += ready.docids
        self.wheres += ready.wheres
        self.skipped += ready.skipped
        self.pieces.append(ready.prepared)

    def prepared(self) -> Prepared:
        """All texts."""
        first, content = self.pieces[0], None
        if first.content is not None:
            content = Ragged.joined([piece.content for piece in self.pieces if piece.content is not None])
        return Prepared(first.layout, Ragged.joined([piece.ids for piece in self.pieces]), content)

    def keep(self, places: list[int]) -> None:
        """Drop the other passages."""
        joined = self.prepared()
        content = None if joined.content is None else Ragged.of([joined.content[i] for i in places])
        self.pieces = [Prepared(joined.layout, Ragged.of([joined.ids[i] for i in places]), content)]
        self.docids, self.wheres = [self.docids[i] for i in places], [self.wheres[i] for i in places]


def gathered(ready: Iterator[tuple[int, ReadyRows]]) -> Iterator[ReadyPart]:
    """Whole parts of (part number, some of its rows)."""
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
    """Compares the ids of each part with those of the parts before it that this run passes (see store/docids.py).

    With ``skip`` a passage whose id was seen before is listed among the skipped rows, whether the part is encoded now
    or was there already, so that the bytes do not depend on where a run was interrupted; else it is an InputError.
    """

    def __init__(self, corpus: Corpus, skip: bool):
        self._corpus, self._skip = corpus, skip
        self._seen = SeenIds()
        self._kept: deque[tuple[int, Hashes]] = deque()

    def kept(self, number: int, docids: list[str]) -> None:
        """Part ``number`` is there already, with ``docids``; parts before it may still come to :meth:`apply`."""
        self._kept.append((number, hashes(docids)))

    def apply(self, part: ReadyPart) -> None:
        """Drop the passages of ``part`` whose ids were seen before.

        Raises
        ------
        InputError
            For the first of them, naming both rows, unless rows are to be skipped.
        """
        while self._kept and self._kept[0][0] < part.number:
            self._seen.add(self._kept.popleft()[1])
        some = hashes(part.docids)
        earlier = self._seen.known(some)
        first: dict[str, str] = {}
        keep = []
        for i, (docid, where) in enumerate(zip(part.docids, part.wheres, strict=True)):
            if not earlier[i] and docid not in first:
                first[docid] = where
                keep.append(i)
                continue
            if not self._skip:
                before = first.get(docid) or next(rows_of(self._corpus, docid), "an earlier part")
                raise repeated(where, docid, before)
            before = first.get(docid) or "an earlier part of the corpus"  # which one would depend on the shards
            part.skipped.append((where, f"{where}: passage id {docid!r} was seen before in {before}."))
        if len(keep) < len(part.docids):
            part.keep(keep)
        self._seen.add(some[:, keep])


def rows_of(corpus: Corpus, docid: str) -> Iterator[str]:
    """File and line of each passage ``docid``, in order; the corpus is read once more."""
    for row in corpus.rows():
        with contextlib.suppress(InputError):
            if parse_row(row).docid == docid:
                yield row.where


def repeated(where: str, docid: str, before: str) -> InputError:
    """The error for an id that occurs twice."""
    return InputError(
        f"{where}: passage id {docid!r} was seen before in {before}; ids must be unique "
        "(--on-error skip keeps the first passage of each id and lists the others)."
    )
