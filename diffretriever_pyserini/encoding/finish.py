"""Finishing a shard: no id may occur in two parts of the store, whichever shards wrote them."""

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
from .parts import repeated_id_error, rows_of

if TYPE_CHECKING:
    from .job import EncodingJob


def finish(job: EncodingJob, rows: int) -> ShardNote:
    """Write the shard's note and return it; the last shard first looks for ids that occur in several parts.

    If bad rows are skipped, parts that hold an id of an earlier part are encoded again. The shard must have released
    its lock: a lock that is held here belongs to a shard that is being run again.

    Parameters
    ----------
    rows : number of rows of the whole corpus.

    Raises
    ------
    InputError
        For an id that occurs twice, naming both rows, unless bad rows are skipped.
    DiffRetrieverError
        When a shard is being run again, so that its parts cannot be replaced.
    """
    shards = job.options.shards
    others = [shard for shard in range(shards) if shard != job.options.shard]
    with only_writer(job.output / LOCKS / FINISH_LOCK, str(job.output), wait=True):
        job.spec.write(job.output)  # again: a failed run may have removed it since the shard released its lock
        if all(shard_path(job.output, shard, shards).is_file() for shard in others) and (
            bad := _parts_to_replace(job, rows)
        ):
            with contextlib.ExitStack() as locks:
                own_locks = {job.all_shards.lock(0), *map(job.lock, range(shards))}
                for lock in own_locks:
                    locks.enter_context(only_writer(lock, f"{job.output}, where parts must be encoded again,"))
                job.refuse_other_shards(own_locks)
                job.progress.restart(
                    f"{len(bad)} parts hold ids of earlier parts, written by other runs; encoding them again."
                )
                for path in bad:
                    path.unlink()
                job.all_shards.encode_missing(job.corpus.rows())
            for shard in others:
                _leave_note(job, rows, shard)
        return _leave_note(job, rows, job.options.shard)


def _parts_to_replace(job: EncodingJob, rows: int) -> list[Path]:
    """Return the files of parts that hold an id of an earlier part; InputError unless bad rows are skipped."""
    bad: dict[Path, None] = {}
    for docid, first, again in repeats(_parts(job, rows)):
        if not job.skip:
            locations = list(islice(rows_of(job.corpus, docid), 2))
            before, after = locations if len(locations) == 2 else (str(first.path), str(again.path))
            raise repeated_id_error(after, docid, before)
        bad[again.path] = None
    return list(bad)


def _parts(job: EncodingJob, rows: int, shard: int = 0, shards: int = 1) -> list[Part]:
    """Return the parts of a shard that are on disk; by default those of all shards."""
    parts = map(job.part, range(shard, -(-rows // job.spec.rows_per_part), shards))
    return [part for part in parts if part.path.is_file()]


def _leave_note(job: EncodingJob, rows: int, shard: int) -> ShardNote:
    parts = _parts(job, rows, shard, job.options.shards)
    note = ShardNote(rows, sum(map(len, parts)), sum(len(part.header["skipped"]) for part in parts))
    note.write(job.output, shard, job.options.shards)
    return note
