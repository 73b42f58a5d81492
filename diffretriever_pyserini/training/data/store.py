"""Passages of a collection on disk: by number, by id and by text, without holding the texts in memory."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...corpora.corpus import Passage
from ...errors import InputError

_READ_AT_ONCE = 1024


class PassageStore:
    """An SQLite file of passages, numbered from 0 in the order in which they came.

    Raises InputError when an id occurs twice.
    """

    def __init__(self, path: Path, passages: Iterable[Passage]):
        self._table = sqlite3.connect(path)
        self._table.execute("PRAGMA synchronous = OFF")
        self._table.execute(
            "CREATE TABLE passages (number INTEGER PRIMARY KEY, docid TEXT UNIQUE, title TEXT, text TEXT, digest BLOB)"
        )
        self._count = 0
        for passage in passages:
            digest = text_digest(passage.contents)
            row = (self._count, passage.docid, passage.title, passage.text, digest)
            try:
                self._table.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise InputError(f"passage id '{passage.docid}' occurs twice; ids must be unique.") from error
            self._count += 1
        self._table.execute("CREATE INDEX by_digest ON passages (digest)")
        self._table.commit()
        if not self._count:
            raise InputError("the collection holds no passages.")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Passage:
        found = self._table.execute("SELECT docid, title, text FROM passages WHERE number = ?", (number,)).fetchone()
        if found is None:
            raise IndexError(number)
        return Passage(*found)

    def __iter__(self) -> Iterator[Passage]:
        cursor = self._table.execute("SELECT docid, title, text FROM passages ORDER BY number")
        while batch := cursor.fetchmany(_READ_AT_ONCE):
            yield from (Passage(*row) for row in batch)

    def number(self, docid: str) -> int | None:
        """Number of the passage with this id, or None."""
        found = self._table.execute("SELECT number FROM passages WHERE docid = ?", (docid,)).fetchone()
        return None if found is None else int(found[0])

    def same_text(self, text: str) -> list[int]:
        """Numbers of the passages with this text, title included; case and white space do not count."""
        found = self._table.execute("SELECT number FROM passages WHERE digest = ?", (text_digest(text),))
        return [int(row[0]) for row in found]

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()


def text_digest(text: str) -> bytes:
    """16 bytes that two texts share when they differ in case and white space only."""
    return hashlib.blake2b(" ".join(text.casefold().split()).encode("utf-8", "replace"), digest_size=16).digest()
