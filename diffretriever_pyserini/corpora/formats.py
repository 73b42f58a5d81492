"""Rows of corpus files, before and after parsing: JSON lines, TSV, Parquet, Arrow, and data sets of the hub.

Reading is kept apart from parsing: one process walks the files, and `parse_row` runs in as many as parsing needs.
Every reader is a generator that takes the number of rows still to be skipped and returns what is left of it, so that
skipping goes on in the next file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, reason
from ..files.jsonl import LINE_LIMIT, checked_id, decoded, parse_object, read_raw_lines, text_field, too_long
from ..text import join_title

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Generator["RawRow", None, int]
"""Rows to be parsed; returns how many rows are still to be skipped in the next file."""

_IDS = ("_id", "id", "docid")
_TEXTS = ("text", "contents")
_READ = frozenset((*_IDS, "title", *_TEXTS))
_PIECE = 256  # records turned into Python objects at once


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row not yet parsed; small and picklable, because it travels to worker processes.

    ``kind`` is "jsonl" or "tsv" (``payload``: the line's bytes), "record" (a dict of the fields), or "broken" (a row
    that could be passed over but not read; ``payload`` is the complaint that `parse_row` raises).
    """

    kind: str
    where: str
    payload: bytes | str | dict[str, Any]


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


def parse_row(row: RawRow) -> Passage:
    """The passage in a row; a pure function.

    The id is the first of the fields ``_id``, ``id`` and ``docid`` that is there and not null. Without a field
    ``text``, the field ``contents`` is taken whole and ``title`` is not read, as Pyserini does; in BEIR's layout
    (``_id``) a title alone is a passage, too. In TSV, two columns are id and text, four are id, URL, title and body
    (MS MARCO passages and documents).

    Raises
    ------
    InputError
        Naming ``row.where``: the row is not UTF-8, no JSON object (for instance cut in half) or of another number of
        columns, its id is missing or cannot stand in a run file, its text is missing altogether, or a field is no
        string.
    """
    where = row.where
    match row.kind, row.payload:
        case "jsonl", bytes(line):
            return _from_record(parse_object(decoded(line, where), where), where)
        case "tsv", bytes(line):
            return _from_columns(decoded(line, where).split("\t"), where)
        case "record", dict(record):
            return _from_record(record, where)
        case "broken", str(complaint):
            raise InputError(complaint)
    raise InputError(f"{where}: a row of kind {row.kind!r} cannot hold {type(row.payload).__name__}.")


def _from_record(record: dict[str, Any], where: str) -> Passage:
    docid = checked_id(next((record[name] for name in _IDS if record.get(name) is not None), None), where, "passage")
    if "text" in record or ("title" in record and "_id" in record and "contents" not in record):
        return Passage(docid, text_field(record, "title", where), text_field(record, "text", where))
    if "contents" in record:
        return Passage(docid, "", text_field(record, "contents", where))
    raise InputError(f"{where}: the passage has no field 'text' or 'contents'; found {_listed(list(record))}.")


def _from_columns(columns: list[str], where: str) -> Passage:
    docid = checked_id(columns[0], where, "passage")
    if len(columns) == 2:
        return Passage(docid, "", columns[1])
    if len(columns) == 4 and (not columns[1] or ("://" in columns[1] and "\r" not in columns[1])):
        return Passage(docid, columns[2], columns[3])
    found = f"{len(columns)} columns" if len(columns) != 4 else f"4 columns with {columns[1][:40]!r} as the second"
    raise InputError(f"{where}: {found}; expected id and text, or id, URL, title and body, with tabs between.")


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:12]) or "nothing"
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


def line_rows(path: Path, kind: str, start: int) -> Rows:
    """The lines of a JSONL or TSV file that are not blank, after the first ``start``.

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
    """The rows after the first ``start`` of a Parquet or Arrow file, or of a data set of the hub (``kind`` "hub").

    A data set is named ``owner/name:split`` or ``owner/name:config:split``; nothing of it is run as code.

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
        raise InputError(f"{name}, after row {number}: damaged, or no {kind} file ({reason(error)}).") from error
    return start


def _parquet_batches(name: str, start: int) -> Iterator[int | pa.RecordBatch]:
    """Pieces of a Parquet file; a whole row group among the first ``start`` rows comes as its number of rows."""
    import pyarrow.parquet as pq

    # With a buffer pyarrow reads a row group piece by piece; pre-buffering would hold it whole.
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
    """Batches of an Arrow file, as they were written (IPC file or stream format), one after the other in memory."""
    import pyarrow as pa

    with pa.OSFile(name) as source:
        random_access = source.read(6) == b"ARROW1"
        open_reader = pa.ipc.open_file if random_access else pa.ipc.open_stream
        source.seek(0)
        names = open_reader(source).schema.names
        wanted = [names.index(column) for column in _columns(names, name)]
        source.seek(0)
        reader = open_reader(source, options=pa.ipc.IpcReadOptions(included_fields=wanted))
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
    except Exception as error:  # whatever a loader or the connection raises
        raise InputError(
            f"data set {name!r}: cannot be read ({reason(error)}), and no file or folder "
            f"{dataset!r} is here. Check the spelling; without a connection, run `hf download --repo-type dataset "
            f"{dataset}` where there is one and name the files that it fetched."
        ) from error


_OPENERS = {"parquet": _parquet_batches, "arrow": _arrow_batches, "hub": _hub_batches}


def _columns(names: list[str], where: str) -> list[str]:
    """The columns of a passage among ``names``; the others (vectors, perhaps) are not read."""
    texts = (*_TEXTS, "title") if "_id" in names else _TEXTS
    for purpose, wanted in (("id", _IDS), ("text", texts)):
        if not set(wanted) & set(names):
            choice = ", ".join(map(repr, wanted))
            raise InputError(f"{where}: no column for the {purpose} (one of {choice}); found {_listed(names)}.")
    return [name for name in names if name in _READ]


def _records(piece: pa.RecordBatch | pa.Table) -> list[dict[str, Any] | str]:
    """Rows as dicts; what is wrong in place of a row that holds text in another encoding."""
    try:
        return piece.to_pylist()
    except UnicodeDecodeError as error:
        if piece.num_rows == 1:
            return [f"not valid UTF-8 ({error.reason}); write the file again."]
        return [one for i in range(piece.num_rows) for one in _records(piece.slice(i, 1))]
