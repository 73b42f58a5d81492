"""Rows of corpus files, before and after parsing: JSON lines, TSV, Parquet, Arrow, and data sets from the hub.

Reading is separate from parsing: one process reads the files, and `parse_row` runs in several. Every reader is a
generator that takes the number of rows to skip and returns how many of them remain to be skipped in the next file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, reason
from ..files.jsonl import LINE_LIMIT, checked_id, decoded, parse_object, read_raw_lines, text_field, too_long
from ..text import join_title

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Generator["RawRow", None, int]
"""Yields rows that are not parsed yet; returns how many rows to skip in the next file."""

_IDS = ("_id", "id", "docid")
_TEXTS = ("text", "contents")
_READ = frozenset((*_IDS, "title", *_TEXTS))
_PIECE = 256  # records turned into Python objects at once


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row before parsing; small and picklable, because it is sent to worker processes.

    ``kind`` is "jsonl" or "tsv" (``payload``: the line's bytes), "record" (a dict of the fields), or "broken" (a row
    that can be skipped but not read; ``payload`` is the error message that `parse_row` raises).
    """

    kind: str
    where: str
    payload: bytes | str | dict[str, Any]

    @property
    def content(self) -> bytes:
        """What a digest of the corpus is over: not where the row is, which a broken row's message names, too."""
        if isinstance(self.payload, dict):
            return json.dumps(self.payload, sort_keys=True, default=str).encode()
        return self.payload if isinstance(self.payload, bytes) else b"\0"


def digested(rows: Iterable[RawRow], digest: hashlib._Hash) -> Iterator[RawRow]:
    """Yield ``rows``, each added to ``digest`` first."""
    for row in rows:
        digest.update(row.content)
        yield row


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of a corpus; title and text may be empty."""

    docid: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """What a model encodes and BM25 indexes: title and text joined by `text.join_title`; may be empty."""
        return join_title(self.title, self.text)

    @property
    def record(self) -> dict[str, str]:
        """Pyserini's JSON fields: ``contents`` is for BM25, title and text are for models."""
        return {"id": self.docid, "title": self.title, "text": self.text, "contents": self.contents}


def parse_row(row: RawRow) -> Passage:
    """The passage in a row; a pure function.

    The id is the first of the fields ``_id``, ``id`` and ``docid`` that is present and not null. Where ``text`` is
    missing or null, the text is all of ``contents`` and ``title`` is ignored, as in Pyserini. In BEIR's layout
    (``_id``) a title alone is a passage, too. In TSV, two columns are id and text; four are id, URL, title and body
    (MS MARCO passages and documents).

    Raises
    ------
    InputError
        The message begins with ``row.where``. The row is not UTF-8, not a JSON object (for example, cut in half) or has
        another number of columns; its id is missing or cannot be written to a run file; it has no text field; or a
        field is not a string.
    """
    where = row.where
    match row.kind, row.payload:
        case "jsonl", bytes(line):
            return _from_record(parse_object(decoded(line, where), where), where)
        case "tsv", bytes(line):
            return _from_columns(decoded(line, where).split("\t"), where)
        case "record", dict(record):
            return _from_record(record, where)
        case "broken", str(message):
            raise InputError(message)
    raise InputError(f"{where}: a row of kind {row.kind!r} cannot hold {type(row.payload).__name__}.")


def _from_record(record: dict[str, Any], where: str) -> Passage:
    docid = checked_id(next((record[name] for name in _IDS if record.get(name) is not None), None), where, "passage")
    if record.get("text") is None and record.get("contents") is not None:
        return Passage(docid, "", text_field(record, "contents", where))
    if "text" in record or ("title" in record and "_id" in record):
        return Passage(docid, text_field(record, "title", where), text_field(record, "text", where))
    if "contents" in record:
        return Passage(docid, "", "")
    raise InputError(f"{where}: the passage has no field 'text' or 'contents'; found {_names_in_words(list(record))}.")


def _from_columns(columns: list[str], where: str) -> Passage:
    docid = checked_id(columns[0], where, "passage")
    if len(columns) == 2:
        return Passage(docid, "", columns[1])
    if len(columns) == 4 and (not columns[1] or ("://" in columns[1] and "\r" not in columns[1])):
        return Passage(docid, columns[2], columns[3])
    problem = f"{len(columns)} columns" if len(columns) != 4 else f"4 columns, and the second is {columns[1][:40]!r}"
    raise InputError(f"{where}: {problem}; expected id and text, or id, URL, title and body, separated by tabs.")


def _names_in_words(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:12]) or "nothing"
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


def line_rows(path: Path, kind: str, start: int) -> Rows:
    """The non-blank lines of a JSONL or TSV file after the first ``start``.

    Raises
    ------
    InputError
        When the file cannot be read or is a damaged gzip or zstd file.
    """
    name = str(path)
    for number, line in read_raw_lines(path):
        if start:
            start -= 1
            continue
        where = f"{name}, line {number}"
        yield RawRow(kind, where, line) if len(line) <= LINE_LIMIT else RawRow("broken", where, too_long(where))
    return start


def record_rows(name: str, kind: str, start: int) -> Rows:
    """The rows after the first ``start`` of a Parquet or Arrow file, or of a data set from the hub (``kind`` "hub").

    A data set is named ``owner/name:split`` or ``owner/name:config:split``; none of its code is run.

    Raises
    ------
    InputError
        When the source cannot be reached or read, is damaged, or has no column for the id or for the text.
    """
    import pyarrow as pa

    number = 0
    try:
        for batch in _OPENERS[kind](name, start):
            size = batch if isinstance(batch, int) else batch.num_rows
            skipped = min(start, size)
            start -= skipped
            number += skipped
            if isinstance(batch, int) or skipped == size:
                continue
            for offset in range(skipped, size, _PIECE):
                for record in _records(batch.slice(offset, _PIECE)):
                    number += 1
                    where = f"{name}, row {number}"
                    if isinstance(record, dict):
                        yield RawRow("record", where, record)
                    else:
                        yield RawRow("broken", where, f"{where}: {record}")
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{name}, after row {number}: damaged, or not a file of kind {kind} ({reason(error)})."
        ) from error
    return start


def _parquet_batches(name: str, start: int) -> Iterator[int | pa.RecordBatch]:
    """Batches of a Parquet file; for a row group that lies within the first ``start`` rows, only its number of rows."""
    import pyarrow.parquet as pq

    # With a buffer, pyarrow reads a row group in pieces; pre-buffering would load all of it.
    with pq.ParquetFile(name, buffer_size=1 << 20, pre_buffer=False) as file:
        columns = _columns(file.schema_arrow.names, name)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        while sizes and sizes[0] <= start:
            start -= sizes[0]
            yield sizes.pop(0)
        if sizes:
            groups = list(range(file.num_row_groups - len(sizes), file.num_row_groups))
            yield from file.iter_batches(_PIECE, row_groups=groups, columns=columns, use_threads=False)


def _arrow_batches(name: str, start: int) -> Iterator[int | pa.RecordBatch]:
    """Batches of an Arrow file as written (IPC file or stream format); one at a time is in memory."""
    import pyarrow as pa

    with pa.OSFile(name) as source:
        random_access = source.read(6) == b"ARROW1"
        open_reader = pa.ipc.open_file if random_access else pa.ipc.open_stream
        source.seek(0)
        names = open_reader(source).schema.names
        fields = [names.index(column) for column in _columns(names, name)]
        source.seek(0)
        reader = open_reader(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        if random_access:
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from reader


def _hub_batches(name: str, start: int) -> Iterator[int | pa.Table]:
    """Tables of a data set, streamed through ``datasets``."""
    dataset, *config, split = name.split(":")
    try:
        import datasets

        stream = datasets.load_dataset(dataset, *config, split=split, streaming=True)
        for table in stream.with_format("arrow").iter(_PIECE):
            yield table.select(_columns(table.column_names, name))
    except InputError:
        raise
    except Exception as error:  # anything that a loader or the connection raises
        raise InputError(
            f"data set {name!r}: cannot be read ({reason(error)}), and there is no file or folder {dataset!r}. Check "
            f"the spelling. Without a connection, run `hf download --repo-type dataset {dataset}` on another machine "
            "and name the files that it downloads."
        ) from error


_OPENERS = {"parquet": _parquet_batches, "arrow": _arrow_batches, "hub": _hub_batches}


def _columns(names: list[str], where: str) -> list[str]:
    """The columns of a passage among ``names``; other columns, such as vectors, are not read."""
    texts = (*_TEXTS, "title") if "_id" in names else _TEXTS
    for purpose, choices in (("id", _IDS), ("text", texts)):
        if not set(choices) & set(names):
            choice = ", ".join(map(repr, choices))
            raise InputError(f"{where}: no column for the {purpose} (one of {choice}); found {_names_in_words(names)}.")
    return [name for name in names if name in _READ]


def _records(piece: pa.RecordBatch | pa.Table) -> list[dict[str, Any] | str]:
    """Rows as dicts; an error message instead of a row with text in another encoding."""
    try:
        return piece.to_pylist()
    except UnicodeDecodeError as error:
        if piece.num_rows == 1:
            return [f"not valid UTF-8 ({error.reason}); write the file again as UTF-8."]
        return [record for i in range(piece.num_rows) for record in _records(piece.slice(i, 1))]
