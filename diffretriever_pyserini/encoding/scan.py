"""Which rows of a corpus are still to be encoded: those of the parts that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from ..corpora.corpus import RawRow
from ..errors import InputError
from ..store.part import Part
from .parts import UniqueIds
from .prefetch import chunks

if TYPE_CHECKING:
    from .job import EncodingJob


class Scan:
    """The rows of one shard's missing parts, in order, and the count of everything that was passed.

    Parameters
    ----------
    rows : the whole corpus.
    """

    def __init__(self, job: EncodingJob, rows: Iterable[RawRow], ids: UniqueIds):
        self._job, self._rows, self._ids = job, iter(rows), ids
        self.rows = self.parts = self.kept = 0

    def __iter__(self) -> Iterator[tuple[int, list[RawRow]]]:
        """(part number, some of its rows)."""
        rows, size, options = self._rows, self._job.spec.rows_per_part, self._job.options
        number = 0
        while True:
            ours = number % options.shards == options.shard
            kept = self._there(number) if ours else None
            if ours and kept is None:
                count = 0
                for chunk in chunks(islice(rows, size)):
                    count += len(chunk)
                    yield number, chunk
            else:
                count = sum(1 for _ in islice(rows, size))
            if kept is not None:
                self._keep(kept, number, count)
            self.rows += count
            self.parts += ours and count > 0
            if count < size:
                return
            number += 1

    def _there(self, number: int) -> Part | None:
        """Part ``number`` if it is on the disk and sound; a damaged one is named and removed."""
        part = self._job.part(number)
        if not part.path.is_file():
            return None
        try:
            if self._job.options.verify:
                part.verify()
            if part.header["part"] != number:
                raise InputError(f"{part.path}: holds part {part.header['part']}.")
        except InputError as error:
            self._job.progress.say(f"{error} Doing it again now.")
            part.path.unlink()
            return None
        return part

    def _keep(self, part: Part, number: int, rows: int) -> None:
        """Count ``part``, for which the corpus has ``rows`` rows now; another number than then is an error."""
        if part.header["rows"] != rows:
            raise InputError(
                f"{part.path} was made of {part.header['rows']} rows of the corpus, which has {rows} in that place "
                "now: the corpus has changed; encode it into another folder."
            )
        self.kept += 1
        self._ids.kept(number, part.docids)
        self._job.progress.keep(rows)
