"""Store: a finished store, to read and to build indexes from."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from ..errors import InputError
from ..files.atomic import read_json, write_json
from ..settings import CountFrom0, record_from
from .part import Part, part_path
from .spec import read_spec


def shard_path(folder: Path, shard: int, shards: int) -> Path:
    """Return the path of the note that shard ``shard`` of ``shards`` leaves when all its parts are written."""
    return folder / "shards" / f"{shard:05d}-of-{shards:05d}.json"


@dataclass(frozen=True)
class ShardNote:
    """The note of a finished shard: ``rows`` of the whole corpus, ``passages`` and ``skipped`` rows of the shard."""

    rows: CountFrom0
    passages: CountFrom0
    skipped: CountFrom0

    def write(self, folder: Path, shard: int, shards: int) -> None:
        """Write the note of shard ``shard`` of ``shards``."""
        path = shard_path(folder, shard, shards)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ShardNote:
        """Return the note in ``path``; InputError if it is damaged."""
        remedy = "remove this file and run `diffretriever encode` again"
        return record_from(cls, read_json(path, remedy), path, remedy)


class Store:
    """A finished store: all its parts exist.

    Raises
    ------
    InputError
        If ``folder`` holds no store, or one that is not finished; the message says what is missing.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, Store, encode_corpus
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> store = Store("store")
    >>> len(store), list(store.docids())
    (2, ['p1', 'p2'])
    """

    def __init__(self, folder: str | Path):
        self.spec = read_spec(Path(folder))
        self.folder = Path(folder).absolute()  # parts are opened when first read, perhaps from another directory
        self.rows = self._rows()
        count = -(-self.rows // self.spec.rows_per_part)
        self.parts = [Part(part_path(self.folder, number), self.spec) for number in range(count)]
        missing = [part.path for part in self.parts if not part.path.is_file()]
        if missing:
            raise InputError(
                f"{missing[0]} is missing ({len(missing)} parts in all); run `diffretriever encode` again."
            )

    def _rows(self) -> int:
        """Return the number of corpus rows, from the notes of a complete set of shards."""
        paths: dict[int, list[Path]] = {}
        for path in sorted((self.folder / "shards").glob("*-of-*.json")):
            paths.setdefault(int(path.stem.rpartition("-")[2]), []).append(path)
        complete = [list(map(ShardNote.read, group)) for shards, group in paths.items() if len(group) == shards]
        rows = {note.rows for notes in complete for note in notes}
        if len(rows) > 1:
            raise InputError(
                f"{self.folder}: its shards counted {min(rows):,} and {max(rows):,} rows in the corpus, so it changed "
                "between them; encode it again into another folder."
            )
        for notes in complete:
            if (counted := sum(note.passages + note.skipped for note in notes)) != notes[0].rows:
                raise InputError(
                    f"{self.folder / 'shards'}: damaged (its files count {counted:,} passages and skipped rows, but "
                    f"the corpus has {notes[0].rows:,} rows); remove them and run `diffretriever encode` again."
                )
        if rows:
            return rows.pop()
        state = "; ".join(f"{len(group)} of {shards} shards" for shards, group in paths.items()) or "no shard"
        raise InputError(f"{self.folder}: the store is not finished ({state}); run `diffretriever encode` to the end.")

    def __repr__(self) -> str:
        spec = self.spec
        vectors = f"{spec.vectors} vectors [{spec.stored_k}, {spec.dimension}] {spec.dtype}"
        return f"Store({str(self.folder)!r}, {self.rows} rows, {vectors}, encoder={spec.encoder!r})"

    def __len__(self) -> int:
        return int(self.bounds[-1])

    @cached_property
    def bounds(self) -> list[int]:
        """The number of the first passage of each part, then the number of all passages."""
        bounds = [0]
        remaining = self.rows
        for number, part in enumerate(self.parts):
            rows = min(remaining, self.spec.rows_per_part)
            if (part.header["part"], part.header["rows"]) != (number, rows):
                raise InputError(
                    f"{part.path}: holds part {part.header['part']} with {part.header['rows']} rows of the corpus, not "
                    f"part {number} with {rows}; remove this file and run `diffretriever encode` again."
                )
            remaining -= rows
            bounds.append(bounds[-1] + len(part))
        return bounds

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the parts' checksums: two stores of equal digest have equal contents."""
        checksums = "".join(str(part.header["sha256"]) for part in self.parts)
        return hashlib.sha256(checksums.encode()).hexdigest()

    def portions(self, count: int) -> list[Store]:
        """Return ``count`` stores of about equal size: consecutive runs of the parts that have passages.

        Raises
        ------
        InputError
            If fewer parts than ``count`` have passages.
        """
        filled = [number for number, (low, high) in enumerate(pairwise(self.bounds)) if low < high]
        if len(filled) < count:
            raise InputError(
                f"{self.folder} has {len(filled)} parts with passages, too few for {count} shards: use fewer shards, "
                f"or encode with a smaller --part-size (it is {self.spec.rows_per_part:,})."
            )
        bounds = [len(filled) * shard // count for shard in range(count + 1)]
        return [self.portion(filled[low], filled[high - 1] + 1) for low, high in pairwise(bounds)]

    def portion(self, start: int, stop: int) -> Store:
        """Return the parts ``start`` to ``stop`` as a store, which numbers its passages from 0."""
        portion = copy.copy(self)
        portion.parts = self.parts[start:stop]
        portion.rows = sum(int(part.header["rows"]) for part in portion.parts)
        portion.bounds = [bound - self.bounds[start] for bound in self.bounds[start : stop + 1]]
        vars(portion).pop("digest", None)  # of all parts
        return portion

    def docids(self) -> Iterator[str]:
        """Yield all ids, in the order of the corpus."""
        for part in self.parts:
            yield from part.docids

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Yield (file and line, reason) of every corpus row without a passage."""
        for part in self.parts:
            yield from ((where, reason) for where, reason in part.header["skipped"])
