"""Passages of a collection on disk: by number, by id and by text, without holding the texts in memory."""

from __future__ import annotations

import hashlib
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import batched
from pathlib import Path

from ...corpora.corpus import Passage
from ...errors import InputError

_READ_AT_ONCE = 1024


class PassageStore:
    """An SQLite file of passages, numbered from 0 in the order given.

    Raises InputError when an id occurs twice.
    """

    def __init__(self, path: Path, passages: Iterable[Passage]):
        self._table = sqlite3.connect(path)
        self._table.execute("PRAGMA synchronous = OFF")
        self._table.execute(
            "CREATE TABLE passages (number INTEGER PRIMARY KEY, docid TEXT UNIQUE, title TEXT, text TEXT, digest BLOB, "
            "untitled BLOB)"
        )
        self._count = 0
        for passage in passages:
            digests = (text_digest(passage.contents), text_digest(passage.text) if passage.text.strip() else None)
            row = (self._count, passage.docid, passage.title, passage.text, *digests)
            try:
                self._table.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise InputError(f"passage id '{passage.docid}' occurs twice; ids must be unique.") from error
            self._count += 1
        self._table.execute("CREATE INDEX by_digest ON passages (digest)")
        self._table.execute("CREATE INDEX by_untitled ON passages (untitled)")
        self._table.commit()
        if not self._count:
            raise InputError("the collection holds no passages.")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Passage:
        row = self._table.execute("SELECT docid, title, text FROM passages WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise IndexError(number)
        return Passage(*row)

    def __iter__(self) -> Iterator[Passage]:
        cursor = self._table.execute("SELECT docid, title, text FROM passages ORDER BY number")
        while batch := cursor.fetchmany(_READ_AT_ONCE):
            yield from (Passage(*row) for row in batch)

    def number(self, docid: str) -> int | None:
        """Number of the passage with this id, or None."""
        row = self._table.execute("SELECT number FROM passages WHERE docid = ?", (docid,)).fetchone()
        return None if row is None else int(row[0])

    def same_text(self, text: str) -> list[int]:
        """Numbers of the passages with this text, with or without their title, as :func:`text_digest` compares."""
        rows = self._table.execute(
            "SELECT number FROM passages WHERE digest = ?1 OR untitled = ?1 ORDER BY number", (text_digest(text),)
        )
        return [int(row[0]) for row in rows]

    def distinct(self, numbers: Sequence[int]) -> list[int]:
        """``numbers`` in their order, without those whose text an earlier one has."""
        digests: dict[int, bytes] = {}
        for batch in batched(numbers, _READ_AT_ONCE):
            marks = ", ".join("?" * len(batch))
            digests |= self._table.execute(f"SELECT number, digest FROM passages WHERE number IN ({marks})", batch)
        first: dict[bytes, int] = {}
        for number in numbers:
            first.setdefault(digests[number], number)
        return list(first.values())

    def close(self) -> None:
        """Close the file."""
        self._table.close()


def text_digest(text: str) -> bytes:
    """16 bytes, equal for texts that differ only in case, white space and composition of accents (NFC)."""
    plain = unicodedata.normalize("NFC", " ".join(text.casefold().split()))
    return hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=16).digest()


def text_key(text: str) -> int:
    """Half of :func:`text_digest` as a signed 64-bit integer."""
    return int.from_bytes(text_digest(text)[:8], "little", signed=True)
