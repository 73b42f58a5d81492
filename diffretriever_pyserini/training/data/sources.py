"""Sources of training rows: files that are read in place, and sources that are first written to disk row by row.

Plain ``.jsonl`` and ``.tsv`` files are read in place. Compressed files, parquet files, data sets and judged collections
(BEIR folders, ``irds:NAME``) are streamed once into ``.jsonl`` files in a work folder. No passage text is held in
memory; the judgements and the texts of all queries of a collection are, while its rows are written.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ...corpora.beir import is_beir, open_beir
from ...corpora.corpus import Corpus, parse_row
from ...corpora.irds import irds_name
from ...corpora.qrels import judgements, read_qrels
from ...corpora.topics import read_topics
from ...errors import InputError, reason
from ...files.atomic import whole_file
from ...files.folders import restore
from ...files.jsonl import read_blocks, regular
from ...model.hub import is_hub_id
from .rows import Row, ScoredPassage, to_record

_WHOLE = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 64 << 10
_PLAIN = (".jsonl", ".json", ".tsv")


def row_files(sources: Iterable[str], work: Path, split: str = "train") -> list[Path]:
    """Files with one training row per line for ``sources``, written into ``work`` where they do not exist yet.

    A source is a file (.jsonl, .tsv, either with .gz; .parquet), a folder in BEIR layout with ``qrels/<split>.tsv``, a
    folder of such files, a judged data set of ir_datasets (``irds:NAME``), or the hub id of a data set
    (``owner/name`` or ``owner/name:split``) in Tevatron's layout.

    Raises
    ------
    InputError
        For a source that is none of these, or a collection whose files do not agree.
    """
    files: list[Path] = []
    for source in sources:
        files += _files(str(source), work, split)
    return files


def digests(sources: Iterable[str], split: str = "train") -> dict[str, str]:
    """Size and digest of every file that ``sources`` are read from, by its path; none for data sets.

    The digest covers the whole file up to 64 MiB, and evenly spread blocks of a larger one.
    """
    states: dict[str, str] = {}
    for source in sources:
        path = Path(source).expanduser()
        restore(path)
        files = [path] if path.is_file() else _files_in(path, split) if path.is_dir() else []
        states |= {str(file): f"{file.stat().st_size} bytes, {_file_digest(file)[:16]}" for file in files}
    return states


def _file_digest(path: Path) -> str:
    """SHA-256 of a file; of its size and 64 evenly spread blocks if it is larger than 64 MiB."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for i in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _files_in(folder: Path, split: str) -> list[Path]:
    """The files of a folder that hold its rows: those of a BEIR collection, or every file of rows."""
    if is_beir(folder):
        files = open_beir(folder, split)
        return [files.corpus, files.queries, files.qrels]
    paths = sorted(path for path in folder.iterdir() if path.name.removesuffix(".gz").endswith((*_PLAIN, ".parquet")))
    if not paths:
        raise InputError(f"{folder}: neither a folder in BEIR layout nor one of .jsonl, .tsv or .parquet files.")
    return [regular(path) for path in paths]


def _files(source: str, work: Path, split: str) -> list[Path]:
    path = Path(source).expanduser()
    restore(path)
    if path.is_dir():
        paths = _files_in(path, split)
        if is_beir(path):
            stem = f"{path.resolve().name}-{split}-{_state(*paths)}"
            return [_written(work, stem, lambda: judged_rows(source, split, open_beir(path, split).corpus, work))]
        return [file for one in paths for file in _files(str(one), work, split)]
    if path.is_file():
        if path.suffix == ".gz" and path.with_suffix("").suffix in _PLAIN:
            return [_unzipped(path, work)]
        if path.suffix == ".parquet":
            stem = f"{path.stem}-{_state(path)}"
            return [_written(work, stem, lambda: _dataset_rows("parquet", "train", data_files=str(path)))]
        if path.suffix in _PLAIN:
            return [path]
        raise InputError(f"{path}: training rows are .jsonl, .tsv (either with .gz) or .parquet files.")
    if (collection := irds_name(source)) is not None:
        stem = f"irds-{collection.replace('/', '--')}"
        return [_written(work, stem, lambda: judged_rows(source, split, source, work))]
    name, _, hub_split = source.partition(":")
    if is_hub_id(name):
        hub_split = hub_split or split
        return [_written(work, f"{name.replace('/', '--')}-{hub_split}", lambda: _dataset_rows(name, hub_split))]
    raise InputError(f"{source}: no such file or folder, and not a data set (owner/name of the hub, irds:NAME).")


def _written(work: Path, stem: str, rows: Any) -> Path:
    """``work/<stem>.jsonl`` with the objects of ``rows()``; an existing file is complete and used again."""
    path = work / f"{stem}.jsonl"
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
            for record in rows():
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


def _state(*paths: Path) -> str:
    """Eight characters that change when one of the files does, so that an outdated copy is not used."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:8]


def _unzipped(path: Path, work: Path) -> Path:
    plain = path.with_suffix("")
    target = work / f"{plain.stem}-{_state(path)}{plain.suffix}"
    if not target.is_file():
        work.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as partial, partial.open("wb") as file:
            file.writelines(read_blocks(path))  # all bytes, so that line numbers in messages are those of ``path``
    return target


def _dataset_rows(name: str, split: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """Records of a data set, streamed through ``datasets``; InputError where it cannot be read."""
    import datasets

    try:
        yield from datasets.load_dataset(name, split=split, streaming=True, **arguments)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"data set {name!r}, split {split!r}: cannot be read ({reason(error)}). Without a connection, download "
            "its files on another machine and give their paths."
        ) from error


def judged_rows(source: str, split: str, corpus: str | Path, work: Path) -> Iterator[dict[str, Any]]:
    """Rows of the judgements of ``source``: one per query, with every passage of a positive grade.

    Their order is that of each query's first positive judgement. Passages are looked up in an SQLite file in ``work``,
    so that memory does not grow with the corpus. Raises InputError for a judgement whose query or passage has no text.
    """
    qrels, queries = read_qrels(source, split), read_topics(source, split)
    path = work / f"{Path(source).name}.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as table:
        _fill(table, corpus)
        for qid in dict.fromkeys(qid for _, qid, _, grade in judgements(source, split) if grade > 0):
            positives = []
            for docid in (docid for docid, grade in qrels[qid].items() if grade > 0):
                record = table.execute("SELECT id, title, text FROM corpus WHERE id = ?", (docid,)).fetchone()
                if record is None:
                    raise InputError(
                        f"{source}: passage '{docid}' is judged for query '{qid}' but is not in the corpus."
                    )
                positives.append(ScoredPassage(*record))
            if qid not in queries:
                raise InputError(f"{source}: query '{qid}' is judged but has no text.")
            yield to_record(Row(queries[qid], tuple(positives), (), qid))
    path.unlink()


def _fill(table: sqlite3.Connection, corpus: str | Path) -> None:
    """Copy the passages of ``corpus`` into ``table``; an id that occurs twice is an InputError."""
    table.execute("PRAGMA synchronous = OFF")
    table.execute("CREATE TABLE corpus (id TEXT PRIMARY KEY, title TEXT, text TEXT) WITHOUT ROWID")
    for row in Corpus(corpus).rows():
        passage = parse_row(row)
        try:
            table.execute("INSERT INTO corpus VALUES (?, ?, ?)", (passage.docid, passage.title, passage.text))
        except sqlite3.IntegrityError as error:
            raise InputError(f"{row.where}: passage id '{passage.docid}' occurs twice; ids must be unique.") from error
    table.commit()
