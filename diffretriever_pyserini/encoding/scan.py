"""Which rows of a corpus are still to be encoded: those of missing parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from ..corpora.corpus import RawRow
from ..corpora.formats import digested
from ..errors import InputError
from ..store.part import Part
from .parts import UniqueIds
from .prefetch import chunks

if TYPE_CHECKING:
    from .job import EncodingJob


class Scan:
    """The rows of one shard's missing parts, in order, and counts of all rows and parts that were read.

    Parameters
    ----------
    rows : the whole corpus.

    Attributes
    ----------
    digests : SHA-256 of the rows of each missing part that was read.
    """

    def __init__(self, job: EncodingJob, rows: Iterable[RawRow], ids: UniqueIds):
        self._job, self._rows, self._ids = job, iter(rows), ids
        self.rows = self.parts = self.kept = 0
        self.digests: dict[int, str] = {}

    def __iter__(self) -> Iterator[tuple[int, list[RawRow]]]:
        """Yield (part number, chunk of its rows) for each missing part."""
        rows, size, options = self._rows, self._job.spec.rows_per_part, self._job.options
        number = 0
        while True:
            in_shard = number % options.shards == options.shard
            existing = self._existing(number) if in_shard else None
            digest, count = hashlib.sha256(), 0
            if existing is not None:
                count = sum(1 for _ in digested(islice(rows, size), digest))
                self._keep(existing, number, count, digest.hexdigest())
            elif in_shard:
                for chunk in chunks(digested(islice(rows, size), digest)):
                    self.digests[number] = digest.hexdigest()  # whole with the part's last chunk
                    count += len(chunk)
                    yield number, chunk
            else:
                count = sum(1 for _ in islice(rows, size))
            self.rows += count
            if in_shard and count > 0:
                self.parts += 1
            if count < size:
                return
            number += 1

    def _existing(self, number: int) -> Part | None:
        """Return part ``number`` if it is on disk and intact; a damaged one is reported and removed."""
        part = self._job.part(number)
        if not part.path.is_file():
            return None
        try:
            if self._job.options.verify:
                part.verify()
            if part.header["part"] != number:
                raise InputError(f"{part.path}: holds part {part.header['part']}.")
        except InputError as error:
            self._job.progress.say(f"{error} Encoding it again now.")
            part.path.unlink()
            return None
        return part

    def _keep(self, part: Part, number: int, rows: int, digest: str) -> None:
        """Count an existing part; InputError if it was not made from the ``rows`` rows that the corpus has now."""
        if part.header["rows"] != rows:
            raise InputError(
                f"{part.path} was made from {part.header['rows']} rows of the corpus, which now has {rows} for it: the "
                "corpus has changed; encode it into another folder."
            )
        if not part.made_from(digest):
            raise InputError(
                f"{part.path} was made from {rows} rows of the corpus that read otherwise now: the corpus has changed; "
                "encode it into another folder."
            )
        self.kept += 1
        self._ids.add_existing(number, part.docids)
        self._job.progress.keep(rows)
