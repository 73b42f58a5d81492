"""Store: a finished store, for those who build indexes from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from ..errors import InputError
from ..files.atomic import read_json, write_json
from ..settings import CountFrom0, record_from
from .part import Part, part_path
from .spec import read_spec


def shard_path(folder: Path, shard: int, shards: int) -> Path:
    """The note that shard ``shard`` of ``shards`` leaves when all its parts are there."""
    return folder / "shards" / f"{shard:05d}-of-{shards:05d}.json"


@dataclass(frozen=True)
class ShardNote:
    """What the note says: ``rows`` of the whole corpus, ``passages`` and ``skipped`` rows of the shard."""

    rows: CountFrom0
    passages: CountFrom0
    skipped: CountFrom0

    def write(self, folder: Path, shard: int, shards: int) -> None:
        """Say that shard ``shard`` of ``shards`` is done."""
        path = shard_path(folder, shard, shards)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ShardNote:
        """The note in ``path``; InputError where it is damaged."""
        remedy = "remove this file and run `diffretriever encode` again"
        return record_from(cls, read_json(path, remedy), path, remedy)


class Store:
    """A store all of whose parts are there.

    Raises
    ------
    InputError
        When ``folder`` holds no store, or one that is not finished; the message says what is missing.
    """

    def __init__(self, folder: str | Path):
        self.spec = read_spec(Path(folder))
        self.folder = Path(folder).absolute()  # parts are opened when first read, maybe in another directory
        self.rows = self._rows()
        count = -(-self.rows // self.spec.rows_per_part)
        self.parts = [Part(part_path(self.folder, number), self.spec) for number in range(count)]
        missing = [part.path for part in self.parts if not part.path.is_file()]
        if missing:
            raise InputError(
                f"{missing[0]} is missing ({len(missing)} parts in all); run `diffretriever encode` again."
            )

    def _rows(self) -> int:
        """Rows of the corpus, from the notes of a full set of shards."""
        found: dict[int, list[Path]] = {}
        for path in sorted((self.folder / "shards").glob("*-of-*.json")):
            found.setdefault(int(path.stem.rpartition("-")[2]), []).append(path)
        whole = [[ShardNote.read(path) for path in paths] for shards, paths in found.items() if len(paths) == shards]
        rows = {note.rows for notes in whole for note in notes}
        if len(rows) > 1:
            raise InputError(
                f"{self.folder}: its shards counted {min(rows):,} and {max(rows):,} rows in the corpus, so it changed "
                "between them; encode it again into another folder."
            )
        for notes in whole:
            if (told := sum(note.passages + note.skipped for note in notes)) != notes[0].rows:
                raise InputError(
                    f"{self.folder / 'shards'}: damaged (its files tell of {told:,} passages and skipped rows, of a "
                    f"corpus of {notes[0].rows:,} rows); remove them and run `diffretriever encode` again."
                )
        if rows:
            return rows.pop()
        have = "; ".join(f"{len(notes)} of {shards} shards" for shards, notes in found.items()) or "no shard"
        raise InputError(f"{self.folder}: the store is not finished ({have}); run `diffretriever encode` to the end.")

    def __repr__(self) -> str:
        spec = self.spec
        kept = f"{spec.vectors} vectors [{spec.k_passage}, {spec.dimension}] {spec.dtype}"
        return f"Store({str(self.folder)!r}, {len(self)} passages, {kept}, encoder={spec.provenance.encoder!r})"

    def __len__(self) -> int:
        return int(self.bounds[-1])

    @cached_property
    def bounds(self) -> list[int]:
        """Passage number at which each part begins, and the number of all passages at the end."""
        bounds = [0]
        left = self.rows
        for number, part in enumerate(self.parts):
            rows = min(left, self.spec.rows_per_part)
            if (part.header["part"], part.header["rows"]) != (number, rows):
                raise InputError(
                    f"{part.path}: holds part {part.header['part']} with {part.header['rows']} rows of the corpus, not "
                    f"part {number} with {rows}; remove this file and run `diffretriever encode` again."
                )
            left -= rows
            bounds.append(bounds[-1] + len(part))
        return bounds

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the parts' own checksums: two stores of one digest hold the same."""
        told = "".join(str(part.header["sha256"]) for part in self.parts)
        return hashlib.sha256(told.encode()).hexdigest()

    def docids(self) -> Iterator[str]:
        """All ids in the corpus's order."""
        for part in self.parts:
            yield from part.docids

    def skipped(self) -> Iterator[tuple[str, str]]:
        """(where, reason) of every corpus row that gave no passage."""
        for part in self.parts:
            yield from ((where, reason) for where, reason in part.header["skipped"])
