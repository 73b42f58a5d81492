"""The end of a shard: no id may stand in two of the store's parts, whichever shard wrote them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..corpora.corpus import Corpus
from ..files.atomic import only_writer
from ..store.docids import repeats
from ..store.part import Part, part_path
from ..store.spec import LOCKS, StoreSpec
from ..store.store import finish_shard, shard_path
from .parts import repeated, rows_of
from .progress import Progress


@dataclass(frozen=True)
class ShardEnd:
    """What finishing shard ``shard`` of ``shards`` needs to know; ``rows`` are those of the whole corpus."""

    output: Path
    spec: StoreSpec
    shard: int
    shards: int
    rows: int

    def parts(self, shard: int = 0, shards: int = 1) -> list[Part]:
        """The parts of a shard, or of all, that are on the disk."""
        count = -(-self.rows // self.spec.rows_per_part)
        paths = [part_path(self.output, number) for number in range(shard, count, shards)]
        return [Part(path, self.spec) for path in paths if path.is_file()]

    def lock(self, shard: int) -> Path:
        """The lock file of ``shard``."""
        return shard_lock(self.output, shard, self.shards)

    def note(self, shard: int) -> tuple[int, int]:
        """Write the note that ``shard`` is done; returns its numbers of passages and of skipped rows."""
        parts = self.parts(shard, self.shards)
        passages, skipped = sum(map(len, parts)), sum(len(part.header["skipped"]) for part in parts)
        finish_shard(self.output, shard, self.shards, self.rows, passages, skipped)
        return passages, skipped


def shard_lock(output: Path, shard: int, shards: int) -> Path:
    """The lock file of a shard's writer."""
    return output / LOCKS / f"{shard:05d}-of-{shards:05d}"


def finish(
    end: ShardEnd, corpus: Corpus, skip: bool, redo: Callable[[], object], progress: Progress
) -> tuple[int, int]:
    """Leave the shard's note; the last shard looks for ids that stand in several parts first. Returns as ``note``.

    The shard's own lock must be free again: whoever holds one here is being run.

    Parameters
    ----------
    skip : do the parts again that hold an id of an earlier part; else that is an error.
    redo : encodes all parts that are missing.

    Raises
    ------
    InputError
        For an id that occurs twice, naming both rows, unless rows are to be skipped.
    DiffRetrieverError
        When a shard is being run again, so that its parts cannot be done again.
    """
    others = [shard for shard in range(end.shards) if shard != end.shard]
    with only_writer(end.output / LOCKS / "finish", str(end.output), wait=True):
        if not all(shard_path(end.output, shard, end.shards).is_file() for shard in others):
            return end.note(end.shard)
        bad: dict[Path, None] = {}
        for docid, first, again in repeats(end.parts()):
            if not skip:
                rows = list(islice(rows_of(corpus, docid), 2))
                before, where = rows if len(rows) == 2 else (str(first.path), str(again.path))
                raise repeated(where, docid, before)
            bad[again.path] = None
        if bad:
            with contextlib.ExitStack() as locks:
                for lock in {shard_lock(end.output, 0, 1), *(end.lock(shard) for shard in range(end.shards))}:
                    locks.enter_context(only_writer(lock, f"{end.output}, where parts must be done again,"))
                progress.again(f"{len(bad)} parts hold ids of earlier parts, written by other runs; doing them again.")
                for path in bad:
                    path.unlink()
                redo()
            for shard in others:
                end.note(shard)
        return end.note(end.shard)
