"""Rows that are ready for the model, gathered to whole parts in which no id occurs that was seen before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

from ..collections.corpus import Corpus, parse_row
from ..errors import InputError
from ..preparation import Prepared, Ragged
from ..store.docids import SeenIds
from ..store.part import Part, part_path
from ..store.spec import StoreSpec
from .ahead import ReadyRows

_UNWRITTEN = 3  # parts that may be under way between here and the disk


@dataclass
class PartRows:
    """Rows of one part that are still to be encoded."""

    number: int
    rows: int = 0
    docids: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
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


def gathered(ready: Iterator[tuple[int, ReadyRows]]) -> Iterator[PartRows]:
    """Whole parts of (part number, some of its rows)."""
    part: PartRows | None = None
    for number, rows in ready:
        if part is not None and part.number != number:
            yield part
            part = None
        part = part or PartRows(number)
        part.add(rows)
    if part is not None:
        yield part


class UniqueIds:
    """Holds the ids of each part against those of all parts before it.

    With ``skip`` a passage whose id was seen before is listed among the skipped rows, whether the part is encoded now
    or was there already, so that the bytes do not depend on where a run was interrupted; else it is an InputError.
    """

    def __init__(self, corpus: Corpus, output: Path, spec: StoreSpec, skip: bool):
        self._corpus, self._spec, self._skip = corpus, spec, skip
        self._recent: dict[int, list[str]] = {}
        self._on_disk = lru_cache(maxsize=4)(lambda number: Part(part_path(output, number), spec).docids)
        self._seen = SeenIds(lambda number: self._recent.get(number) or self._on_disk(number))

    def kept(self, number: int, docids: list[str]) -> None:
        """Part ``number`` is there already, with ``docids``."""
        self._seen.add(number, docids)

    def apply(self, part: PartRows) -> None:
        """Drop the passages of ``part`` whose ids were seen before.

        Raises
        ------
        InputError
            For the first of them, naming both places, unless rows are to be skipped.
        """
        earlier = self._seen.before(part.number, part.docids)
        first: dict[str, str] = {}
        keep = []
        for i, (docid, where) in enumerate(zip(part.docids, part.wheres, strict=True)):
            if docid not in earlier and docid not in first:
                first[docid] = where
                keep.append(i)
                continue
            if not self._skip:
                before = first.get(docid) or place(self._corpus, self._spec, earlier[docid], docid)
                raise repeated(where, docid, before)
            before = first.get(docid) or "an earlier part of the corpus"  # which one would depend on the shards
            part.skipped.append((where, f"{where}: passage id {docid!r} was seen before in {before}."))
        if len(keep) < len(part.docids):
            part.keep(keep)
        self._seen.add(part.number, part.docids)
        self._recent[part.number] = part.docids
        for number in sorted(self._recent)[:-_UNWRITTEN]:
            del self._recent[number]


def place(corpus: Corpus, spec: StoreSpec, number: int, docid: str) -> str:
    """File and line of the passage ``docid`` in part ``number``; the corpus is read once more up to there."""
    for row in islice(corpus.rows(number * spec.rows_per_part), spec.rows_per_part):
        try:
            if parse_row(row).docid == docid:
                return row.where
        except InputError:
            continue
    return f"part {number}"


def repeated(where: str, docid: str, before: str) -> InputError:
    """The error for an id that occurs twice."""
    return InputError(
        f"{where}: passage id {docid!r} was seen before in {before}; ids must be unique "
        "(--on-error skip keeps the first passage of each id and lists the others)."
    )
