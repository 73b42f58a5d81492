"""The end of a shard: no id may stand in two of the store's parts, whichever shard wrote them."""

from __future__ import annotations

import contextlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.atomic import only_writer
from ..store.docids import repeats
from ..store.part import Part
from ..store.spec import FINISH_LOCK, LOCKS
from ..store.store import ShardNote, shard_path
from .parts import repeated, rows_of

if TYPE_CHECKING:
    from .job import EncodingJob


def finish(job: EncodingJob, rows: int) -> ShardNote:
    """Leave the shard's note; the last shard looks for ids that stand in several parts first. Returns the note.

    Parts that hold an id of an earlier part are done again where rows are to be skipped. The shard's own lock must be
    free again: whoever holds one here is being run.

    Parameters
    ----------
    rows : of the whole corpus.

    Raises
    ------
    InputError
        For an id that occurs twice, naming both rows, unless rows are to be skipped.
    DiffRetrieverError
        When a shard is being run again, so that its parts cannot be done again.
    """
    shards = job.options.shards
    others = [shard for shard in range(shards) if shard != job.options.shard]
    with only_writer(job.output / LOCKS / FINISH_LOCK, str(job.output), wait=True):
        job.spec.write(job.output)  # again: a run that failed may have removed it since the shard's lock was released
        if all(shard_path(job.output, shard, shards).is_file() for shard in others) and (bad := _bad(job, rows)):
            with contextlib.ExitStack() as locks:
                own = {job.everything.lock(0), *map(job.lock, range(shards))}
                for lock in own:
                    locks.enter_context(only_writer(lock, f"{job.output}, where parts must be done again,"))
                job.refuse_other_shards(own)
                job.progress.again(
                    f"{len(bad)} parts hold ids of earlier parts, written by other runs; doing them again."
                )
                for path in bad:
                    path.unlink()
                job.everything.encode_missing(job.corpus.rows())
            for shard in others:
                _leave_note(job, rows, shard)
        return _leave_note(job, rows, job.options.shard)


def _bad(job: EncodingJob, rows: int) -> list[Path]:
    """Files of the parts that hold an id of an earlier part, each once; InputError unless rows are to be skipped."""
    bad: dict[Path, None] = {}
    for docid, first, again in repeats(_parts(job, rows)):
        if not job.skip:
            where = list(islice(rows_of(job.corpus, docid), 2))
            before, after = where if len(where) == 2 else (str(first.path), str(again.path))
            raise repeated(after, docid, before)
        bad[again.path] = None
    return list(bad)


def _parts(job: EncodingJob, rows: int, shard: int = 0, shards: int = 1) -> list[Part]:
    """The parts of a shard, or of all, that are on the disk."""
    parts = map(job.part, range(shard, -(-rows // job.spec.rows_per_part), shards))
    return [part for part in parts if part.path.is_file()]


def _leave_note(job: EncodingJob, rows: int, shard: int) -> ShardNote:
    parts = _parts(job, rows, shard, job.options.shards)
    note = ShardNote(rows, sum(map(len, parts)), sum(len(part.header["skipped"]) for part in parts))
    note.write(job.output, shard, job.options.shards)
    return note
